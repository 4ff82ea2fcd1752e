"use strict";
// Without a validator: nothing is sent anywhere but to this gateway.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
});
