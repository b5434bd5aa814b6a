// Capabilities: those that a device lists in its packages, and those that a group requires (RFC 9420 sections 7.2, 11.1).

import { decodeRequiredCapabilities, encodeRequiredCapabilities, type ClientState, type Extension } from "ts-mls";
import { defaultExtensionTypes, credentialTypes, type Capabilities as ListedCapabilities } from "ts-mls";
import { greaseCapabilities } from "ts-mls/grease.js";

import type { components } from "./api.js";
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

/** The requirements of a group as the server takes them. */
export type Requirements = Required<components["schemas"]["RequiredCapabilities"]>;

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

/** The extension of a new group that requires some types of all members. Throws `invalid_argument`. */
export function requiring(types: AppTypes | undefined, own: Capabilities): Extension[] {
  const { extensions, proposals } = appTypes(types);
  if (extensions.length === 0 && proposals.length === 0) {
    return [];
  }
  const isListed = (list: number[]) => (type: number) => list.includes(type);
  if (!extensions.every(isListed([LAST_RESORT, ...own.extensions])) || !proposals.every(isListed(own.proposals))) {
    throw new KeypoolError(
      "invalid_argument",
      `the group requires extensions "${extensions}" and proposals "${proposals}", not all of which this device has`,
      "Name them as `capabilities` when the device is opened.",
    );
  }
  const required = { extensionTypes: extensions, proposalTypes: proposals, credentialTypes: ["basic" as const] };
  return [{ extensionType: "required_capabilities", extensionData: encodeRequiredCapabilities(required) }];
}

/**
 * The capabilities that a package must list so that its device can join a group: those of its `required_capabilities`,
 * the types of its extensions, and the credential types of its members. `undefined` if every package with a Basic
 * credential lists them.
 */
export function requirementsOf({ groupContext, ratchetTree }: ClientState): Requirements | undefined {
  const required = groupContext.extensions
    .filter(({ extensionType }) => extensionType === "required_capabilities")
    .map(({ extensionData }) => decodeRequiredCapabilities(extensionData, 0)?.[0]);
  const present = groupContext.extensions.map(({ extensionType }) => numberOf(extensionType, defaultExtensionTypes));
  const credentials = [
    ...ratchetTree.map((node) => (node?.nodeType === "leaf" ? [node.leaf.credential.credentialType] : [])),
    ...required.map((one) => one?.credentialTypes ?? []),
  ];
  const requirements = {
    extensions: distinct([...present, ...required.flatMap((one) => one?.extensionTypes ?? [])], EXTENSION_DEFAULT_MAX),
    proposals: distinct(
      required.flatMap((one) => one?.proposalTypes ?? []),
      PROPOSAL_DEFAULT_MAX,
    ),
    credentials: distinct(
      credentials.flat().map((type) => numberOf(type, credentialTypes)),
      0,
    ),
  };
  const { extensions, proposals } = requirements;
  const isBasic = requirements.credentials.every((type) => type === credentialTypes.basic);
  return extensions.length === 0 && proposals.length === 0 && isBasic ? undefined : requirements;
}

function distinct(types: number[], defaultMax: number): number[] {
  return [...new Set(types)].filter((type) => defaultMax < type);
}

// ts-mls has names for the types that it knows, and numbers, also as text, for the others.
function numberOf(type: number | string, names: Record<string, number>): number {
  return names[type] ?? Number(type);
}
