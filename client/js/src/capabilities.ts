// Capabilities that a device lists in its packages (RFC 9420 section 7.2).

import type { Capabilities as ListedCapabilities } from "ts-mls";
import { greaseCapabilities } from "ts-mls/grease.js";

import { KeypoolError } from "./errors.js";
import { suiteName, type Ciphersuite } from "./suites.js";

/** The extension that marks a package of last resort (draft-ietf-mls-extensions). */
export const LAST_RESORT = 0x000a;

/** Types of extensions and proposals by number, beside the default ones. */
export interface AppTypes {
  extensions?: number[];
  proposals?: number[];
}

/** The capabilities of a device. */
export interface Capabilities extends Required<AppTypes> {
  ciphersuites: Ciphersuite[];
}

// The last types that every implementation has (RFC 9420 section 7.2).
const EXTENSION_DEFAULT_MAX = 5;
const PROPOSAL_DEFAULT_MAX = 7;
const TYPE_MAX = 0xffff;

/** The capabilities as packages list them, with all GREASE values (RFC 9420 section 13.5): readers must ignore these. */
export function listed({ ciphersuites, extensions, proposals }: Capabilities): ListedCapabilities {
  return greaseCapabilities(
    { probabilityPerGreaseValue: 1 },
    {
      versions: ["mls10"],
      ciphersuites: ciphersuites.map(suiteName),
      extensions: [LAST_RESORT, ...extensions],
      proposals,
      credentials: ["basic"],
    },
  );
}

/** Checks the types that an app has named. Throws `invalid_argument`. */
export function appTypes({ extensions = [], proposals = [] }: AppTypes = {}): Required<AppTypes> {
  const isType = (default_: number) => (type: number) => Number.isInteger(type) && default_ < type && type <= TYPE_MAX;
  if (!extensions.every(isType(EXTENSION_DEFAULT_MAX)) || !proposals.every(isType(PROPOSAL_DEFAULT_MAX))) {
    const fact = `"${extensions}" are to be types of extensions, and "${proposals}" types of proposals`;
    throw new KeypoolError(
      "invalid_argument",
      fact,
      "Name numbers up to 65535, above 5 for extensions, 7 for proposals.",
    );
  }
  return { extensions, proposals };
}
