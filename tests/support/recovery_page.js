// Runs the script of the recovery page as a browser would, against a door: elements that hold what is put into them, a fetch
// that knows where the page came from. Prints what the page shows at first, and after each form was sent.
"use strict";
const fs = require("fs");
const vm = require("vm");

const [host, script, page] = process.argv.slice(2);
const elements = {};
for (const [, id] of fs.readFileSync(page, "utf8").matchAll(/id="([\w-]+)"/g)) {
  elements[id] = {
    id,
    hidden: true,
    textContent: "",
    children: [],
    replaceChildren(...children) { this.children = children; },
    addEventListener(_name, work) { this.send = work; },
    querySelector: () => ({ disabled: false }),
  };
}
const context = vm.createContext({
  document: { getElementById: (id) => elements[id], createElement: () => ({ textContent: "" }) },
  FormData: class { constructor(form) { this.form = form; } get(name) { return this.form.fields[name]; } },
  fetch: (path, options = {}) => fetch(host + path, { ...options, headers: { ...options.headers, Origin: host } }),
});

async function send(id, fields) {
  await elements[id].send({ preventDefault() {}, target: { fields, querySelector: () => ({ disabled: false }) } });
  return elements.answer.textContent;
}

async function main() {
  vm.runInContext(fs.readFileSync(script, "utf8"), context);
  for (let tries = 0; !elements.version.textContent && tries < 200; tries += 1) {
    await new Promise((done) => setTimeout(done, 20));
  }
  const shown = {
    title: elements.title.textContent,
    version: elements.version.textContent,
    problems: elements.problems.children.map((child) => child.textContent),
    visible: Object.values(elements).filter((one) => !one.hidden).map((one) => one.id),
  };
  const answers = [
    await send("send", { line: "get system.uuid" }),
    await send("send", { line: "nonsense" }),
    await send("set-account", { username: "ad min", password: 'a "long" \\one' }),
  ];
  console.log(JSON.stringify({ shown, answers }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
