// An AsyncAPI document, as the AsyncAPI initiative's own parser reads it.
//
//   node check_asyncapi.js PACKAGES FILE     silent if it has nothing to say; else a line for each complaint, and 1

const fs = require("fs");
const path = require("path");
const [, , packages, file] = process.argv;
const { Parser } = require(path.resolve(packages, "@asyncapi/parser"));

new Parser().parse(fs.readFileSync(file, "utf8")).then(({ document, diagnostics }) => {
  // Errors and warnings; beyond them it only says that a newer version of AsyncAPI exists.
  const complaints = diagnostics.filter(({ severity }) => severity <= 1);
  for (const { code, path: place, message } of complaints) console.log(`${place.join("/")}: ${message} (${code})`);
  if (!document && complaints.length === 0) console.log("there is no document");
  process.exit(document && complaints.length === 0 ? 0 : 1);
});
