// Safety numbers: 60 digits that two people compare to be sure of each other's keys.

import { blake3 } from "@noble/hashes/blake3.js";

import { utf8 } from "./bytes.js";

// How many groups of five digits each user contributes.
const GROUPS = 6;
const GROUP_BYTES = 5;

/**
 * The safety number of two users: twelve groups of five digits, the same on both sides and in every implementation
 * (docs/identity.md). `keys` are the users' trusted keys, base64url without padding.
 */
export function safetyNumber(one: { user: string; keys: string[] }, other: { user: string; keys: string[] }): string {
  return [half(one), half(other)].sort().join(" ");
}

function half({ user, keys }: { user: string; keys: string[] }): string {
  const lines = ["keypool-safety-number-v1", user, ...[...keys].sort()];
  const digest = blake3(utf8(lines.map((line) => `${line}\n`).join("")));
  const groups = Array.from({ length: GROUPS }, (_, at) => {
    const bytes = digest.subarray(at * GROUP_BYTES, (at + 1) * GROUP_BYTES);
    // Forty bits: every sum is exact.
    const number = bytes.reduce((sum, byte) => sum * 256 + byte, 0);
    return String(number % 100_000).padStart(5, "0");
  });
  return groups.join(" ");
}
