// Runs the flows of a JavaScript client, like flow.py: a flow is an async generator function of one session, and each
// `yield` ends a turn.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

export const plan = JSON.parse(process.env.SESSIONS_PLAN);
const require = createRequire(`${process.env.CLIENT_MODULES}/`);

// Imports an installed package.
export const load = (name) => import(pathToFileURL(require.resolve(name)));

function makeSession(flow, kind, number) {
  const name = `${flow.name}-${kind}-${number}`;
  const key = kind === "keyless" ? undefined : `key-${name}`;
  return {
    name,
    kind,
    key,
    // The key in the body, if this session has it there.
    bodyKey: kind === "body" ? key : undefined,
    headers: { "x-test-session": name, ...(kind === "header" && { "x-session-id": key }) },
    // Sessions differ only in these, and the first of them only at its end.
    questions: Array.from({ length: plan.turns }, (_, turn) => (turn
      ? `Report ${turn} of ${name}: ${"the wind backs and the tide turns. ".repeat(30)}`
      : `How deep is the water at the buoy of ${name}?`)),
  };
}

export async function run(flows) {
  const running = flows
    .filter((flow) => !plan.flows.length || plan.flows.includes(flow.name))
    .flatMap((flow) => Object.entries(plan.sessions).flatMap(([kind, count]) => Array.from({ length: count }, (_, number) => {
      const session = makeSession(flow, kind, number);
      return [session.name, flow(session)];
    })));
  const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  // The sessions that have failed. The others go on, so that the report is complete.
  const failures = new Map();
  for (let turn = 0; turn <= plan.turns; turn += 1) {
    const left = running.filter(([name]) => !failures.has(name));
    await Promise.all(left.map(async ([name, steps]) => {
      try {
        const { done } = await steps.next();
        if (done !== (turn === plan.turns)) throw new Error(`the flow does not have ${plan.turns} turns`);
      } catch (error) {
        const own = error.stack?.split("\n").filter((line) => line.includes("/sessions/")).map((line) => line.split("/").pop());
        failures.set(name, `${name}, turn ${turn}: ${error} (${own})`);
      }
    }));
    console.log(`turn ${turn}`);
    if ((await input.next()).done) throw new Error("the driver has ended");
  }
  if (failures.size) console.error([...failures.values()].join("\n"));
  process.exit(failures.size ? 1 : 0);
}
