// Runs a program with the address of a real server as its last argument: `node test/with-server.js COMMAND ARGUMENT…`.

import { spawn } from "node:child_process";
import { once } from "node:events";

import { startServer } from "./harness.js";

let end;
const server = await startServer({ after: (all) => (end = all) });
const [command, ...rest] = process.argv.slice(2);
const [code] = await once(spawn(command, [...rest, server.address], { stdio: "inherit" }), "exit");
await end();
process.exitCode = code;
