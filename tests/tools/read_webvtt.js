// WebVTT files, as the W3C's parser reads them.
//
//   node read_webvtt.js PACKAGE FILE...     one line of JSON a file: its errors, and its cues by time, speaker, classes and text

const fs = require("fs");
const [, , folder, ...files] = process.argv;
const { WebVTTParser } = require(folder);
const entities = JSON.parse(fs.readFileSync(`${folder}/html-entities.json`));

const text = (node) => (node.type === "text" ? node.value : node.children.map(text).join(""));

for (const file of files) {
  const { cues, errors } = new WebVTTParser(entities).parse(fs.readFileSync(file, "utf8"), "captions");
  const plain = cues.map(({ startTime, endTime, tree }) => {
    const [span] = tree.children;
    return {
      start: startTime,
      end: endTime,
      speaker: span.name === "v" ? span.value : null,
      classes: span.classes,
      text: text(tree),
    };
  });
  console.log(JSON.stringify({ errors, cues: plain }));
}
