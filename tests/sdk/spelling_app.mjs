// The same app on Express, which by default ignores case and a last slash: `node spelling_app.mjs PORT`.
import { createRequire } from "node:module";

const require = createRequire(`${process.env.TOLLGATE_NODE_MODULES}/`);
const express = require("express");

const app = express();
const served = (what) => (_, response) => response.set("x-served", what).json({ served: what });
// Every model that a request names to an Express app: in its path, its query, its form, or its JSON whatever the label.
const anyLabel = { type: (request) => !/urlencoded|multipart/.test(request.headers["content-type"] ?? ""), strict: false };
const readers = [express.json(anyLabel), express.urlencoded({ extended: true })];
const read = (request, response) => {
  const { body, query } = request;
  const named = decodeURIComponent(request.path).match(/\/(?:deployments|engines|models)\/([^/:]+)/);
  const found = [named?.[1], query.model, query.deployment, ...[body].flat().map((each) => each?.model)];
  const models = JSON.stringify(found.flat().filter((model) => model !== undefined && model !== null));
  response.set("x-models", models.replace(/[^ -~]/g, "?")).send(models);
};
app.use("/read", ...readers, read, (error, request, response, _) => response.status(error.status ?? 400).end());
app.post(["/chat", "/v1/chat/completions"], served("charged"));
app.get("/paid/*rest", served("charged"));
app.all("/free", served("free"));
app.listen(Number(process.argv[2]), "127.0.0.1");
