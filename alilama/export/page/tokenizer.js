"use strict";
// Byte-level BPE: text to token ids as alilama/data/tokenizer.py makes them, and tokens to what a reader sees of them.

class Tokenizer {
  // `description`: the sizes of all tokens, their bytes in base64, one after the other, and what html.py says beside them.
  constructor({ sizes, bytes, byteIds, merges, wholePieces, pattern }) {
    const all = fromBase64(bytes);
    let start = 0;
    this.tokens = sizes.map((size) => all.subarray(start, (start += size)));
    this.byteIds = byteIds;
    this.merges = new Map(); // of two ids, as one number: the rank and what they become
    for (let i = 0; i < merges.length; i += 3)
      this.merges.set(this.pair(merges[i], merges[i + 1]), { rank: i / 3, result: merges[i + 2] });
    this.wholePieces = new Map(wholePieces.map((id) => [this.tokens[id].join(), id]));
    this.pattern = new RegExp(pattern, "gu");
    this.gaps = sizes.flatMap((size, id) => (size ? [] : [id])); // ids without a token
  }

  pair(left, right) {
    return left * this.tokens.length + right;
  }

  // The ids of a text in which no special token is looked for.
  encode(text) {
    const ids = [];
    for (const piece of this.cut(text)) {
      const bytes = new TextEncoder().encode(piece);
      const whole = this.wholePieces.get(bytes.join());
      if (whole === undefined) this.mergeInto(ids, bytes);
      else ids.push(whole);
    }
    return ids;
  }

  // Pieces that no merge crosses; what the pattern does not match is a piece too.
  cut(text) {
    const pieces = [];
    let start = 0;
    for (const found of text.matchAll(this.pattern)) {
      pieces.push(text.slice(start, found.index), found[0]);
      start = found.index + found[0].length;
    }
    pieces.push(text.slice(start));
    return pieces.filter((piece) => piece);
  }

  // Merges neighbours, the lowest rank first and the leftmost where it comes twice, until no two have a merge.
  mergeInto(ids, bytes) {
    const piece = Array.from(bytes, (byte) => this.byteIds[byte]);
    while (piece.length > 1) {
      let best = { rank: Infinity };
      for (let i = 0; i + 1 < piece.length; i++) {
        const merge = this.merges.get(this.pair(piece[i], piece[i + 1]));
        if (merge && merge.rank < best.rank) best = { ...merge, place: i };
      }
      if (best.rank === Infinity) break;
      piece.splice(best.place, 2, best.result);
    }
    for (const id of piece) ids.push(id);
  }

  // A token by itself: white space that can be seen, and bytes that are no whole character in hexadecimal digits.
  show(id) {
    const bytes = this.tokens[id];
    const text = decoder().decode(bytes);
    if (text.includes("\ufffd")) return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
    return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
  }
}

// Bytes to text, a byte order mark as well.
function decoder() {
  return new TextDecoder("utf-8", { ignoreBOM: true });
}

function fromBase64(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
