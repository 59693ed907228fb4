// What the page itself keeps in this browser: who signed in (per tab), and who did before. What is known of conversations is the
// client's to keep. All of it may be missing or refused (private windows); then the page works without.

const readJson = (area, key, otherwise) => {
  try {
    return JSON.parse(area.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
};

const writeJson = (area, key, value) => {
  try {
    if (value === null) area.removeItem(key);
    else area.setItem(key, JSON.stringify(value));
  } catch {
    // Full or forbidden: see above.
  }
};

// ---- The tab's own: `{user, device, token}` -----------------------------------------------------------------------------

const SIGNED_IN = "antiphon.session";
export const loadSignedIn = () => readJson(sessionStorage, SIGNED_IN, null);
export const saveSignedIn = (value) => writeJson(sessionStorage, SIGNED_IN, value);

/** Names that signed in here before, for the sign-in form's suggestions. */
export const recentUsers = () => readJson(localStorage, "antiphon.users", []);
export const rememberUser = (user) =>
  writeJson(localStorage, "antiphon.users", [user, ...recentUsers().filter((one) => one !== user)].slice(0, 5));
