// The ciphersuites: their numbers, the implementations of ts-mls, and the keys that sign their leaves.

import { getCiphersuiteFromName, getCiphersuiteImpl, type CiphersuiteImpl, type CiphersuiteName } from "ts-mls";

import { KeypoolError } from "./errors.js";

/** A ciphersuite that a device can use, by its number (RFC 9420 section 17.1). */
export type Ciphersuite = 1 | 2 | 3;

// Those that both the server and ts-mls have. 77 and above are other suites in ts-mls than the server's of that number.
const NAMES: Record<Ciphersuite, CiphersuiteName> = {
  1: "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519",
  2: "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
  3: "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519",
};

/** The ciphersuite of packages and groups, unless another one is named. */
export const CIPHERSUITE: Ciphersuite = 1;

/** The number in TLS of the signature scheme of ciphersuite 2: ECDSA with P-256. */
export const P256_SCHEME = 0x0403;

/** Returns the name of a ciphersuite in ts-mls. */
export function suiteName(ciphersuite: Ciphersuite): CiphersuiteName {
  return NAMES[ciphersuite];
}

/** Returns the number of a ciphersuite of ts-mls; `undefined` for one that no device of this library can use. */
export function suiteNumber(name: string): Ciphersuite | undefined {
  const found = Object.entries(NAMES).find(([, known]) => known === name);
  return found === undefined ? undefined : (Number(found[0]) as Ciphersuite);
}

/** Returns the implementation of a ciphersuite by its name in ts-mls. Throws an `Error` for an unknown one. */
export function suiteOf(name: string): Promise<CiphersuiteImpl> {
  const ciphersuite = suiteNumber(name);
  if (ciphersuite === undefined) {
    throw new Error(`this device cannot use the ciphersuite ${name}`);
  }
  return getCiphersuiteImpl(getCiphersuiteFromName(NAMES[ciphersuite]));
}

/** Checks the numbers of ciphersuites that an app has named. Throws `invalid_argument`. */
export function usableSuites(numbers: number[]): Ciphersuite[] {
  const usable = Object.keys(NAMES).map(Number);
  const isEachOnce = new Set(numbers).size === numbers.length;
  if (numbers.length === 0 || !isEachOnce || !numbers.every((number) => usable.includes(number))) {
    const fact = `a device cannot keep packages of the ciphersuites "${numbers}"`;
    throw new KeypoolError("invalid_argument", fact, "Name some of 1, 2 and 3, each once.");
  }
  return numbers as Ciphersuite[];
}
