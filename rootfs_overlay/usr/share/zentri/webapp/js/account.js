// The account: who may command the device by this page.

import { send } from "./device.js";
import { field, form, input } from "./dom.js";
import { line } from "./words.js";

/** @param {string} [username] */
export function accountForm(username = "") {
  return form([
    field("User name", input("username", { required: true, maxlength: 32, pattern: "[^:]+", autocomplete: "username", value: username }), "Without a colon."),
    field("Password", input("password", { type: "password", required: true, minlength: 8, maxlength: 64, autocomplete: "new-password" }), "At least 8 characters; a long one is better."),
    field("Password again", input("again", { type: "password", required: true, maxlength: 64, autocomplete: "new-password" })),
  ], "Set and save", async (values, made) => {
    if (values.password !== values.again) throw new Error("The two passwords differ; type the same one twice.");
    // Both hold a moment after they are set: time enough to save them before the browser has to ask for them.
    await send(line("set", "http.server.username", values.username));
    await send(line("set", "http.server.password", values.password));
    await send("save");
    made.reset();
    return "Set and saved. The browser asks for user name and password from now on.";
  });
}
