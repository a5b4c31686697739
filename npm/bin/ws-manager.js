#!/usr/bin/env node
// Runs the ws-manager that is in ../lib with the first Python that will do, and hands everything on unchanged.
"use strict";

const { execFileSync, spawn } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const LAUNCH = path.join(__dirname, "..", "lib", "launch.py");
const WINDOWS = process.platform === "win32";
const NOT_FOUND = 127;
const UNREADABLE = 1;

// Where launch.py finds the real stdout and stderr: higher than any file that a shell hands on by itself.
const STDOUT = 90;
const STDERR = 91;

// On Windows these say that there is no Python: py.exe's, the Store's, and launch.py's own.
const NO_PYTHON = [103, 9009, 1];

const FORWARDED = ["SIGTERM", "SIGHUP", "SIGINT"];

let child = null;
let asked = null; // the signal that asked us to end, if one did

// Everything that may be a Python, the best first: a file to run, or why there is nothing to run.
function* candidates() {
  const { BLACKROAD_WS_PYTHON: chosen, VIRTUAL_ENV: environment } = process.env;
  const tried = new Map();
  function* all(name, label, options = []) {
    const files = path.basename(name) === name ? onPath(name) : [path.resolve(name)];
    if (files.length === 0) yield { label, why: "it is not on the PATH" };
    for (const file of files) {
      const full = `${label} (${file})`;
      const key = [real(file), ...options].join(" ");
      if (tried.has(key)) yield { label: full, why: `it is the same as ${tried.get(key)}` };
      else yield { label: full, file, options };
      if (!tried.has(key)) tried.set(key, full);
    }
  }

  if (chosen) yield* all(chosen, "BLACKROAD_WS_PYTHON");
  if (environment) {
    yield* all(path.join(environment, ...(WINDOWS ? ["Scripts", "python.exe"] : ["bin", "python"])), "VIRTUAL_ENV");
  }
  if (WINDOWS) yield* all("py", "py -3", ["-3"]);
  yield* all("python3", "python3");
  yield* all("python", "python");
  for (let minor = 14; minor >= 9; minor--) yield* all(`python3.${minor}`, `python3.${minor}`);
}

// The files of a name on the PATH. What the PATH says about the current folder is not followed.
function onPath(name) {
  return (process.env.PATH || "")
    .split(path.delimiter)
    .filter((folder) => path.isAbsolute(folder))
    .map((folder) => path.join(folder, WINDOWS ? `${name}.exe` : name))
    .filter((file) => {
      try {
        fs.accessSync(file, WINDOWS ? fs.constants.F_OK : fs.constants.X_OK);
        return fs.statSync(file).isFile();
      } catch (error) {
        // The Store's stand-ins can be run, but not looked at.
        return WINDOWS && error.code === "EACCES";
      }
    });
}

function real(file) {
  try {
    return fs.realpathSync(file);
  } catch {
    return file;
  }
}

// Runs one candidate, and calls back with why it is no Python that will do; not at all if it is one.
function run({ file, options }, refused) {
  let stdio = ["inherit", "inherit", "inherit", "pipe"];
  if (!WINDOWS) {
    // What is ignored above 2 is left alone: a shell's <(…) is there.
    stdio = ["inherit", "ignore", "pipe", ...Array(STDERR - 2).fill("ignore")];
    stdio[STDOUT] = 1;
    stdio[STDERR] = 2;
    for (const number of namedFiles()) stdio[number] = number;
  }
  const python = [...options, "-I", "-S", "-X", "utf8", LAUNCH];
  let accepted = false;
  let said = "";
  let failed = null;
  try {
    child = spawn(file, [...python, ...process.argv.slice(2)], { stdio });
  } catch (error) {
    refused(error.message);
    return;
  }
  // Its end is held here for as long as we live: that is how the child learns that we were killed.
  const life = child.stdio[WINDOWS ? 3 : 2];
  life.on("error", () => {});
  life.on("data", (data) => {
    const text = data.toString("latin1");
    if (text.includes("\0")) accepted = true;
    else if (said.length < 10000) said += data.toString();
  });
  child.on("error", (error) => (failed = error));
  child.on("close", (code, signal) => {
    child = null;
    if (accepted || (signal && FORWARDED.includes(signal))) end(code, signal);
    else if (asked) end(null, asked);
    else if (WINDOWS && !failed && !NO_PYTHON.includes(code)) end(code, signal);
    else refused(reason(failed, said, code, signal));
  });
}

// The files with low numbers that arguments such as /dev/fd/3 mean. Node hands on no others of them.
function* namedFiles() {
  for (const argument of process.argv.slice(2)) {
    const [, digits] = /(?:^|=)\/(?:dev|proc\/self)\/fd\/(\d+)$/.exec(argument) || [];
    const number = Number(digits);
    if (!(number > 2 && number < STDOUT)) continue;
    try {
      fs.fstatSync(number);
      yield number;
    } catch {
      // There is none. The program will say so.
    }
  }
}

function reason(failed, said, code, signal) {
  if (failed) return failed.code === "ENOENT" ? "there is no such file" : `it cannot be run (${failed.code})`;
  const lines = said.split(/\r?\n/).map((line) => line.trim()).filter(Boolean);
  // An error of Python is in its last line; what a version manager's stand-in says begins with the first.
  const line = lines[0] && lines[0].startsWith("Traceback") ? lines[lines.length - 1] : lines[0];
  // Before Python 3.4 none could be isolated.
  if (line && line.startsWith("Unknown option: -I")) return "it is older than Python 3.4";
  return line || (signal ? `it was ended by ${signal}` : `it ended with exit code ${code}`);
}

// Ends as the child has ended.
function end(code, signal) {
  if (!signal) process.exit(code);
  // Node takes this one for itself: it would wait for a debugger.
  if (signal === "SIGUSR1") process.exit(128 + os.constants.signals[signal]);
  for (const name of FORWARDED) process.removeAllListeners(name);
  process.kill(process.pid, signal);
  // Should the signal be blocked or be none of ours.
  setTimeout(() => process.exit(128 + (os.constants.signals[signal] || 0)), 1000);
}

// Whether we are in the foreground of our terminal. Then its Ctrl-C has gone to the child too, for it is in our group.
function inForeground() {
  try {
    let group, foreground;
    if (process.platform === "linux") {
      // pid (name) state ppid pgrp session tty_nr tpgid …
      const stat = fs.readFileSync("/proc/self/stat", "latin1");
      [, , group, , , foreground] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    } else {
      const ps = execFileSync("ps", ["-o", "pgid=,tpgid=", "-p", String(process.pid)], { encoding: "utf8" });
      [group, foreground] = ps.trim().split(/\s+/);
    }
    return group === foreground;
  } catch {
    return false;
  }
}

function handOn(signal) {
  asked = signal;
  if (child === null) end(null, signal);
  else if (signal !== "SIGINT" || !(WINDOWS || inForeground())) child.kill(signal);
}

// npx starts a shell that starts us, and hands SIGTERM to that shell, which dies of it and tells nobody.
function endWithShellOfNpx() {
  const shell = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === shell) return;
    clearInterval(watch);
    // Of a Ctrl-C it dies too, but that has reached us all.
    if (!asked) handOn("SIGTERM");
  }, 200);
  watch.unref();
}

// The file that ours lie in, if a package manager keeps them in an archive: Node may have been taught to look into it,
// as Yarn's Plug'n'Play does, and Python has not.
function archive() {
  for (let folder = path.dirname(LAUNCH); folder !== path.dirname(folder); folder = path.dirname(folder)) {
    try {
      if (fs.statSync(folder).isFile()) return folder;
    } catch {
      // It is no folder of the system's: go on above it.
    }
  }
  return null;
}

function main() {
  const file = archive();
  if (file) {
    console.error(`ws-manager: its files are inside ${file}, which Python cannot read.`);
    console.error("Have them unpacked: yarn unplug blackroad-websocket-manager, or nodeLinker: node-modules in .yarnrc.yml.");
    process.exit(UNREADABLE);
  }
  for (const name of FORWARDED) process.on(name, handOn);
  if (process.env.npm_lifecycle_event === "npx" && !WINDOWS) endWithShellOfNpx();
  const refusals = [];
  let unopened = false; // whether a Python was found that could not open our own file
  const each = candidates();
  const next = () => {
    const { value: candidate, done } = each.next();
    if (done) {
      const told = unopened ? `: Python cannot open its files, in ${path.dirname(LAUNCH)}` : " needs Python 3.9 or newer, and found none";
      console.error(`ws-manager${told}:`);
      for (const { label, why } of refusals) console.error(`  ${label}: ${why}`);
      console.error(
        unopened
          ? "Install the package again, where Python may read it."
          : "Install one from https://www.python.org, or name one with BLACKROAD_WS_PYTHON."
      );
      process.exit(unopened ? UNREADABLE : NOT_FOUND);
    }
    const refused = (why) => {
      if (why.includes("can't open file") && why.includes(path.basename(LAUNCH))) unopened = true;
      refusals.push({ label: candidate.label, why });
      if (candidate.label.startsWith("BLACKROAD_WS_PYTHON")) {
        console.error(`ws-manager: ${candidate.label} is not used: ${why}`);
      }
      next();
    };
    if (candidate.file) run(candidate, refused);
    else refused(candidate.why);
  };
  next();
}

main();
