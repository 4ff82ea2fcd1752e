// The same app on Express, which by default ignores case and a last slash: `node spelling_app.mjs PORT`.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.TOLLGATE_NODE_MODULES}/`);
const express = require("express");

const app = express();
const served = (what) => (_, response) => response.set("x-served", what).json({ served: what });
app.post(["/chat", "/v1/chat/completions"], served("charged"));
app.get("/paid/*rest", served("charged"));
app.all("/free", served("free"));
app.listen(Number(process.argv[2]), "127.0.0.1");
