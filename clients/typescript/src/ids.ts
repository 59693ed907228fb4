// UUIDs of version 7 (RFC 9562, section 5.7): 48 bits of time, then chance. The server tells by the time whether it still remembers an id,
// so that a message is stored at most once however late it is sent again.

/** `randomBytes`: sixteen, of which the first six are replaced by the time. */
export function uuidV7(nowMs: number, randomBytes: Uint8Array): string {
  const bytes = Uint8Array.from(randomBytes);
  let rest = Math.max(0, Math.floor(nowMs));
  for (let index = 5; index >= 0; index -= 1) {
    bytes[index] = rest % 256;
    rest = Math.floor(rest / 256);
  }
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x70;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}
