"use strict";
Redoc.init(
  "/openapi.json",
  { hideDownloadButton: false, nativeScrollbars: true, theme: { typography: { fontFamily: "sans-serif", headings: { fontFamily: "sans-serif" } } } },
  document.getElementById("redoc"),
);
