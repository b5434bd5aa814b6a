// Opens the store in a folder, says how that went, and holds it until it is killed: `node hold-store.js FOLDER`.

import { FileStore } from "keypool-client/node";

try {
  await FileStore.open(process.argv[2]);
  console.log("open");
  setInterval(() => {}, 60_000);
} catch (error) {
  console.log(error.code);
}
