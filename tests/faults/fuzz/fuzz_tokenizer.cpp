// A libFuzzer target over the C++ core. The first byte of an input chooses what is tried (s, t, e and v, and every other byte
// as one of these), the next ones its parameters, the rest is text: so the files in corpus/ can be read and written by hand.
// Aborts where the core and a plain way to the same result differ; the sanitizers see to the rest. Run by .ci/fuzz.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "counter.hpp"
#include "documents.hpp"
#include "encoder.hpp"
#include "trainer.hpp"

namespace alilama {
namespace {

void require(bool holds, const char* what) {
    if (holds) return;
    std::fprintf(stderr, "fuzz_tokenizer: does not hold: %s\n", what);
    std::abort();
}

// Bytes in memory of exactly their size, so that AddressSanitizer sees a step beyond them.
class Exact {
public:
    explicit Exact(std::string_view bytes) : size_(bytes.size()), bytes_(new char[size_]) {
        std::copy(bytes.begin(), bytes.end(), bytes_.get());
    }
    operator std::string_view() const { return {bytes_.get(), size_}; }

private:
    size_t size_;
    std::unique_ptr<char[]> bytes_;
};

// An input that is taken apart from the front.
class Input {
public:
    explicit Input(std::string_view bytes) : bytes_(bytes) {}

    bool empty() const { return bytes_.empty(); }
    std::string_view rest() const { return bytes_; }
    std::string_view take(size_t size) {
        const std::string_view taken = bytes_.substr(0, size);
        bytes_.remove_prefix(taken.size());
        return taken;
    }
    // A number below `bound` from one byte, or from two where one is not enough; 0 at the end.
    size_t number(size_t bound) {
        size_t number = 0;
        for (const char byte : take(bound <= 256 ? 1 : 2)) number = number << 8 | static_cast<uint8_t>(byte);
        return number % bound;
    }
    const Pattern& pattern() { return kPatterns[number(kPatterns.size())]; }

private:
    std::string_view bytes_;
};

// ---- plain ways ----

using Pieces = std::vector<std::string_view>;
using Counts = std::map<std::string, int64_t>;

const uint8_t* begin_of(std::string_view text) { return reinterpret_cast<const uint8_t*>(text.data()); }

// A character of a text.
struct Character {
    CharClass cls;
    std::string_view bytes;
};

// One item of a regular expression: a character of a set, so many times.
struct Item {
    std::string classes, chars;  // of the set: L, M, N, s and S, and characters that stand for themselves
    bool is_negated = false, ignores_case = false;
    size_t least = 1, most = 1;
    bool is_possessive = false;  // gives back nothing that it took
    bool is_unwanted = false;    // (?!x): takes nothing, and must not match

    bool has(const Character& character) const {
        bool found = false;
        for (const char cls : classes) {
            if (cls == 'L') found |= character.cls == CharClass::kLetter;
            if (cls == 'M') found |= character.cls == CharClass::kMark;
            if (cls == 'N') found |= character.cls == CharClass::kNumber;
            if (cls == 's') found |= character.cls == CharClass::kSpace;
            if (cls == 'S') found |= character.cls != CharClass::kSpace;
        }
        const bool is_long_s = ignores_case && character.bytes == "\xC5\xBF";
        if (character.bytes.size() == 1 || is_long_s) {
            char c = is_long_s ? 's' : character.bytes[0];
            if (ignores_case && c >= 'A' && c <= 'Z') c = static_cast<char>(c | 0x20);
            found |= chars.find(c) != std::string::npos;
        }
        return found != is_negated;
    }
};

// A regular expression, as far as patterns need it: a plain way to the pieces, from its text alone. Groups are written
// out as alternatives: a(b|c) is ab|ac.
class Expression {
public:
    explicit Expression(std::string_view text) : rest_(text), alternatives_(parse_alternatives(false)) {}

    // Where the first alternative that matches the text at `begin` ends; `begin` if none does.
    size_t match(const std::vector<Character>& text, size_t begin) const {
        for (const Alternative& alternative : alternatives_)
            if (const size_t end = match(alternative, 0, text, begin); end != kNone) return end;
        return begin;
    }

private:
    using Alternative = std::vector<Item>;
    static constexpr size_t kNone = SIZE_MAX;

    bool skip(std::string_view expected) {
        if (rest_.substr(0, expected.size()) != expected) return false;
        rest_.remove_prefix(expected.size());
        return true;
    }

    char next() {
        require(!rest_.empty(), "an expression is complete");
        const char c = rest_[0];
        rest_.remove_prefix(1);
        return c;
    }

    std::vector<Alternative> parse_alternatives(bool ignores_case) {
        std::vector<Alternative> done, open(1);
        while (!rest_.empty() && rest_[0] != ')') {
            std::vector<Alternative> parts;
            if (skip("|")) {
                done.insert(done.end(), open.begin(), open.end());
                open.assign(1, {});
                continue;
            } else if (skip("(?i:")) {
                parts = parse_alternatives(true);
                require(skip(")"), "a group ends");
            } else if (skip("(?:")) {
                parts = parse_alternatives(ignores_case);
                require(skip(")"), "a group ends");
            } else {
                parts = {{parse_item(ignores_case)}};
            }
            std::vector<Alternative> longer;
            for (const Alternative& first : open) {
                for (const Alternative& second : parts) {
                    longer.push_back(first);
                    longer.back().insert(longer.back().end(), second.begin(), second.end());
                }
            }
            open = longer;
        }
        done.insert(done.end(), open.begin(), open.end());
        return done;
    }

    Item parse_item(bool ignores_case) {
        Item item;
        item.ignores_case = ignores_case;
        item.is_unwanted = skip("(?!");
        if (skip("[")) {
            item.is_negated = skip("^");
            while (!skip("]")) parse_member(item);
        } else {
            parse_member(item);
        }
        if (item.is_unwanted) {
            require(skip(")"), "a look ahead is at one character");
        } else if (skip("?")) {
            item.least = 0;
        } else if (skip("*")) {
            item.least = 0;
            item.most = kNone;
        } else if (skip("+")) {
            item.most = kNone;
        } else if (skip("{")) {
            item.least = static_cast<size_t>(next() - '0');
            require(skip(","), "a number of times is {m,n}");
            item.most = static_cast<size_t>(next() - '0');
            require(skip("}"), "a number of times is {m,n}");
        }
        item.is_possessive = !item.is_unwanted && (item.least != 1 || item.most != 1) && skip("+");
        return item;
    }

    void parse_member(Item& item) {
        if (skip("\\p{L}"))
            item.classes += 'L';
        else if (skip("\\p{M}"))
            item.classes += 'M';
        else if (skip("\\p{N}"))
            item.classes += 'N';
        else if (skip("\\s"))
            item.classes += 's';
        else if (skip("\\S"))
            item.classes += 'S';
        else if (skip("\\r"))
            item.chars += '\r';
        else if (skip("\\n"))
            item.chars += '\n';
        else
            item.chars += next();
    }

    // Where the items from `first` on end when they match the text at `begin`, kNone if they do not.
    size_t match(const Alternative& items, size_t first, const std::vector<Character>& text, size_t begin) const {
        if (first == items.size()) return begin;
        const Item& item = items[first];
        if (item.is_unwanted)
            return begin < text.size() && item.has(text[begin]) ? kNone : match(items, first + 1, text, begin);
        size_t count = 0;
        while (count < item.most && begin + count < text.size() && item.has(text[begin + count])) ++count;
        for (; count >= item.least; --count) {  // the more the better
            if (const size_t end = match(items, first + 1, text, begin + count); end != kNone) return end;
            if (count == 0 || item.is_possessive) break;
        }
        return kNone;
    }

    std::string_view rest_;
    std::vector<Alternative> alternatives_;
};

Pieces naive_pieces(const Pattern& pattern, std::string_view text) {
    static std::map<const Pattern*, Expression> expressions;
    const Expression& expression = expressions.try_emplace(&pattern, pattern.expression).first->second;
    std::vector<Character> characters;
    for (size_t i = 0; i < text.size(); i += characters.back().bytes.size()) {
        const Char c = read_char(begin_of(text) + i, begin_of(text) + text.size());
        characters.push_back({c.cls, text.substr(i, c.size)});
    }
    Pieces pieces;
    size_t at = 0;
    for (size_t i = 0; i < characters.size();) {
        const size_t end = expression.match(characters, i);
        require(end > i, "an expression matches every text");
        size_t size = 0;
        for (; i < end; ++i) size += characters[i].bytes.size();
        pieces.push_back(text.substr(at, size));
        at += size;
    }
    return pieces;
}

void drop_line_end(std::string& text) {
    if (text.empty() || text.back() != '\n') return;
    text.pop_back();
    if (!text.empty() && text.back() == '\r') text.pop_back();
}

std::vector<std::string> naive_documents(std::string_view text) {
    std::vector<std::string> documents(1);
    while (!text.empty()) {
        std::string line(text.substr(0, std::min(text.find('\n'), text.size() - 1) + 1));
        text.remove_prefix(line.size());
        std::string content = line;
        drop_line_end(content);
        if (content == "<|endoftext|>") {
            drop_line_end(documents.back());
            documents.emplace_back();
        } else {
            documents.back() += line;
        }
    }
    return documents;
}

Pieces naive_stretches(std::string_view text, const std::vector<std::string>& tokens) {
    Pieces stretches;
    size_t begin = 0;
    for (size_t i = 0; i < text.size();) {
        size_t size = 0;
        for (const std::string& token : tokens)
            if (token.size() > size && text.substr(i, token.size()) == token) size = token.size();
        if (size > 0) {
            stretches.push_back(text.substr(begin, i - begin));
            begin = i + size;
        }
        i += std::max<size_t>(size, 1);
    }
    stretches.push_back(text.substr(begin));
    return stretches;
}

std::vector<Pair> naive_merges(const Counts& pieces, size_t num_merges) {
    std::map<std::vector<TokenId>, int64_t> words;
    for (const auto& [piece, count] : pieces) words[{begin_of(piece), begin_of(piece) + piece.size()}] += count;
    std::vector<Pair> merges;
    while (merges.size() < num_merges) {
        std::map<Pair, int64_t> pairs;
        for (const auto& [ids, count] : words)
            for (size_t i = 0; i + 1 < ids.size(); ++i) pairs[{ids[i], ids[i + 1]}] += count;
        if (pairs.empty()) break;
        const auto fewer = [](const auto& a, const auto& b) { return a.second < b.second; };
        const Pair best = std::max_element(pairs.begin(), pairs.end(), fewer)->first;  // the first, so the smallest, of equals
        std::map<std::vector<TokenId>, int64_t> merged_words;
        for (const auto& [ids, count] : words) {
            std::vector<TokenId> merged;
            for (size_t i = 0; i < ids.size(); ++i) {
                const bool found = i + 1 < ids.size() && Pair(ids[i], ids[i + 1]) == best;
                merged.push_back(found ? static_cast<TokenId>(256 + merges.size()) : ids[i]);
                i += found;
            }
            merged_words[merged] += count;
        }
        words = std::move(merged_words);
        merges.push_back(best);
    }
    return merges;
}

class NaiveEncoder {
public:
    explicit NaiveEncoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
        for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank)
            ranks_.emplace(Pair(vocabulary.merges[rank].left, vocabulary.merges[rank].right), rank);
    }

    std::vector<TokenId> encode_piece(std::string_view piece) const {
        for (const TokenId id : vocabulary_.whole_pieces)
            if (vocabulary_.tokens[id] == piece) return {id};
        std::vector<TokenId> ids;
        for (const char byte : piece) ids.push_back(vocabulary_.byte_ids[static_cast<uint8_t>(byte)]);
        while (true) {
            size_t best = 0, best_rank = vocabulary_.merges.size();
            for (size_t i = 0; i + 1 < ids.size(); ++i) {
                const auto found = ranks_.find({ids[i], ids[i + 1]});
                if (found == ranks_.end() || found->second >= best_rank) continue;
                best = i;
                best_rank = found->second;
            }
            if (best_rank == vocabulary_.merges.size()) return ids;
            ids[best] = vocabulary_.merges[best_rank].result;
            ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(best) + 1);
        }
    }

private:
    const Vocabulary& vocabulary_;
    std::map<Pair, size_t> ranks_;
};

// ---- s: pieces, documents and cuts ----

void try_pieces(const Pattern& pattern, std::string_view text) {
    const Pieces expected = naive_pieces(pattern, text);
    const uint8_t *p = begin_of(text), *const end = p + text.size();
    for (const std::string_view piece : expected) {
        const uint8_t* const piece_end = pattern.piece_end(p, end);
        require(piece_end == p + piece.size(), "a piece found character by character is that of the expression");
        p = piece_end;
    }
    size_t i = 0;
    for_each_piece(pattern, begin_of(text), begin_of(text) + text.size(), [&](const uint8_t* p, size_t size) {
        require(i < expected.size() && size == expected[i].size() && std::memcmp(p, expected[i].data(), size) == 0,
                "pieces found by blocks are those of the expression");
        ++i;
    });
    require(i == expected.size(), "the pieces are the text");
}

// Texts that end at any of 32 places, so that what looks ahead meets the end.
void try_ends(std::string_view text, size_t known) {
    const size_t begin = known < 32 ? 0 : known - 32;
    for (size_t end = begin; end <= known; ++end) {
        const Exact part(text.substr(begin, end - begin));
        for (const Pattern& pattern : kPatterns) try_pieces(pattern, part);
    }
}

bool joins(const Pattern& pattern, std::string_view left, std::string_view right, std::string_view whole) {
    Pieces pieces = naive_pieces(pattern, left);
    const Pieces behind = naive_pieces(pattern, right);
    pieces.insert(pieces.end(), behind.begin(), behind.end());
    return pieces == naive_pieces(pattern, whole);
}

void try_cut(const Pattern& pattern, std::string_view text, size_t known) {
    const Exact begin(text.substr(0, known));
    const auto whole = split_documents(text);
    const size_t cut = pattern.find_cut(begin);
    require(cut <= known, "a cut lies in the text");
    const Exact left(text.substr(0, cut)), right(text.substr(cut));
    auto left_documents = split_documents(left);
    const auto right_documents = split_documents(right);
    const size_t shared = left_documents.size() - 1;
    require(shared < whole.size(), "no separator comes from a cut");
    require(joins(pattern, left, right, text), "no piece crosses a cut");
    require(joins(pattern, left_documents.back(), right_documents.front(), whole[shared]), "nor in its document");
    left_documents.pop_back();
    left_documents.push_back(whole[shared]);
    left_documents.insert(left_documents.end(), right_documents.begin() + 1, right_documents.end());
    require(left_documents == whole, "no separator crosses a cut");
}

void try_document_cut(std::string_view text, size_t known) {
    const Exact begin(text.substr(0, known));
    const size_t cut = find_document_cut(begin);
    require(cut <= known, "a cut between documents lies in the text");
    if (cut == 0) return;
    const Exact before(text.substr(0, cut)), after(text.substr(cut));
    auto documents = split_documents(before);
    require(documents.back().empty(), "a cut between documents is after a separator");
    documents.pop_back();
    const auto later = split_documents(after);
    documents.insert(documents.end(), later.begin(), later.end());
    require(documents == split_documents(text), "a cut between documents keeps the documents");
}

void try_cuts(std::string_view text, size_t known) {
    for (const Pattern& pattern : kPatterns) try_cut(pattern, text, known);
    try_document_cut(text, known);
}

void try_split(Input input) {
    const size_t place = input.number(65536);
    std::vector<std::string> tokens = {"<|endoftext|>"};
    for (size_t i = input.number(4); i > 0; --i)
        if (std::string token(input.take(1 + input.number(8))); !token.empty()) tokens.push_back(token);
    const Exact bytes(input.rest());
    const std::string_view text = bytes;
    for (const Pattern& pattern : kPatterns) try_pieces(pattern, text);
    const auto documents = split_documents(text);
    const auto expected = naive_documents(text);
    require(std::equal(documents.begin(), documents.end(), expected.begin(), expected.end()), "documents are cut by lines");
    require(split_at_tokens(text, tokens) == naive_stretches(text, tokens), "text is cut at the longest of the first tokens");
    const size_t known = place % (text.size() + 1);
    try_ends(text, known);
    try_cuts(text, known);
    const size_t separator = text.find("<|endoftext|>", known);
    if (separator != std::string_view::npos)  // a text that ends after one, or with half a line end
        try_cuts(text, std::min(separator + 13 + place % 3, text.size()));
}

// ---- t: counting and learning ----

Counts counts_of(const PieceCounter& counter) {
    Counts counts;
    size_t num_bytes = 0;
    counter.for_each([&](std::string_view piece, int64_t count) {
        require(counts.emplace(piece, count).second, "a piece is counted in one place");
        num_bytes += piece.size();
    });
    require(counts.size() == counter.num_pieces() && num_bytes == counter.piece_bytes(), "a counter knows its size");
    return counts;
}

void try_drop(PieceCounter& counter, PieceCounter& same, size_t limit) {
    const Counts before = counts_of(counter);
    const size_t dropped = counter.drop_rarest(limit);
    const Counts kept = counts_of(counter);
    require(counter.num_bytes() <= limit && kept.size() + dropped == before.size(), "pieces are dropped up to the limit");
    int64_t most_dropped = 0, least_kept = INT64_MAX;
    for (const auto& [piece, count] : before) {
        const auto found = kept.find(piece);
        require(found == kept.end() || found->second == count, "a piece that is kept keeps its count");
        if (found == kept.end())
            most_dropped = std::max(most_dropped, count);
        else
            least_kept = std::min(least_kept, count);
    }
    require(most_dropped <= least_kept, "the rarest are dropped");
    require(same.drop_rarest(limit) == dropped && counts_of(same) == kept, "what is dropped does not depend on the order");
}

void try_train(Input input) {
    const Pattern& pattern = input.pattern();
    std::vector<PieceCounter> parts(1 + input.number(3));
    const size_t num_merges = input.number(256), kept = input.number(256);
    const Exact text(input.rest());

    PieceCounter counter;
    counter.add_text(pattern, text);
    Counts expected;
    size_t turn = 0;
    for (const std::string_view piece : naive_pieces(pattern, text)) {
        ++expected[std::string(piece)];
        parts[turn++ % parts.size()].add_piece(Exact(piece));
    }
    for (; parts.size() > 1; parts.pop_back()) {
        parts.front().merge(parts.back());
        require(parts.back().num_pieces() == 0, "a counter that is merged away is empty");
    }
    require(counts_of(counter) == expected, "a counter counts every piece");
    require(counts_of(parts.front()) == expected, "counters that saw parts merge into the same counts");

    if (kept < 255) try_drop(counter, parts.front(), counter.num_bytes() * kept / 255);
    const std::vector<Pair> merges = learn_merges(counter, num_merges, [] {});
    require(merges == learn_merges(parts.front(), num_merges, [] {}), "merges do not depend on the order of the pieces");
    if (counter.piece_bytes() > 120) return;
    constexpr size_t kMost = 30;  // a naive trainer is slow
    const std::vector<Pair> first(merges.begin(), merges.begin() + static_cast<std::ptrdiff_t>(std::min(merges.size(), kMost)));
    require(first == naive_merges(counts_of(counter), std::min(num_merges, kMost)), "merges are a naive trainer's");
}

// ---- e: a learned vocabulary, encoding and decoding ----

template <class Id, class Number>
void try_decode(const Encoder& encoder, const Vocabulary& vocabulary, const std::vector<Number>& numbers) {
    std::vector<Id> ids;
    for (const Number number : numbers) ids.push_back(static_cast<Id>(number));
    std::string expected;
    bool valid = true;
    for (const Id id : ids) {
        const auto place = static_cast<uint64_t>(id);
        if (place < vocabulary.tokens.size() && !vocabulary.tokens[place].empty())
            expected += vocabulary.tokens[place];
        else
            valid = false;
    }
    try {
        const std::string text = encoder.decode(ids.data(), ids.size());
        require(valid, "an id that is no token is refused");
        require(text == expected, "decoded text is that of the tokens");
    } catch (const std::out_of_range&) {
        require(!valid, "a token's id is not refused");
    }
}

template <class Id>
void try_encode(const Encoder& encoder, const Vocabulary& vocabulary, const Pattern& pattern, std::string_view text) {
    const NaiveEncoder naive(vocabulary);
    std::vector<Id> expected;
    size_t naive_bytes = 0;
    for (const std::string_view piece : naive_pieces(pattern, text)) {
        const Exact bytes(piece);
        const std::unique_ptr<Id[]> ids(new Id[piece.size() + Encoder::kSlack]);
        Id* const end = encoder.encode_piece(bytes, ids.get());
        require(end - ids.get() <= static_cast<std::ptrdiff_t>(piece.size()), "a piece has no more tokens than bytes");
        expected.insert(expected.end(), ids.get(), end);
        naive_bytes += piece.size();
        if (piece.size() > 200 || naive_bytes > 400) continue;  // too slow
        const std::vector<TokenId> plain = naive.encode_piece(piece);
        require(std::equal(plain.begin(), plain.end(), ids.get(), end), "a piece's ids are a naive encoder's");
    }
    PieceCache<Id> cache = encoder.make_cache<Id>();
    for (int round = 0; round < 2; ++round) {  // the second from the cache
        const std::unique_ptr<Id[]> ids(new Id[text.size() + Encoder::kSlack]);
        Id* const end = encoder.encode(pattern, text, cache, ids.get());
        require(std::equal(expected.begin(), expected.end(), ids.get(), end), "a text's ids are those of its pieces");
    }
    try_decode<Id>(encoder, vocabulary, expected);
    std::string decoded;
    for (const Id id : expected) decoded += vocabulary.tokens[id];
    require(decoded == text, "decoding gives back the text");
}

// The bytes, the merges, a special token and an id that is none, from `shift` on and, beyond the last id, from 0 on.
Vocabulary learned_vocabulary(const std::vector<Pair>& merges, size_t shift, size_t num_ids) {
    Vocabulary vocabulary;
    num_ids = std::max(num_ids, 256 + merges.size() + 2);
    vocabulary.tokens.resize(num_ids);
    const auto place = [&](size_t id) { return static_cast<TokenId>((id + shift) % num_ids); };
    for (size_t byte = 0; byte < 256; ++byte) {
        vocabulary.byte_ids[byte] = place(byte);
        vocabulary.tokens[place(byte)] = std::string(1, static_cast<char>(byte));
    }
    for (const auto& [left, right] : merges) {
        const Merge merge = {place(left), place(right), place(256 + vocabulary.merges.size())};
        vocabulary.tokens[merge.result] = vocabulary.tokens[merge.left] + vocabulary.tokens[merge.right];
        vocabulary.merges.push_back(merge);
    }
    vocabulary.tokens[place(256 + merges.size())] = "<|endoftext|>";
    return vocabulary;
}

// Ids on both sides of the limits.
std::vector<int64_t> odd_ids(Input& input, size_t num_ids) {
    const auto limit = static_cast<int64_t>(num_ids);
    const int64_t bases[] = {0, 0, 0, 0, 0, 0, limit, -limit, 65536, int64_t{1} << 32, INT64_MIN, INT64_MAX - limit};
    std::vector<int64_t> ids;
    for (size_t i = input.number(64); i > 0; --i) {
        const int64_t base = bases[input.number(std::size(bases))];
        ids.push_back(base + static_cast<int64_t>(input.number(2) == 0 ? 0 : input.number(num_ids)));
    }
    return ids;
}

void try_tokenizer(Input input) {
    const Pattern& pattern = input.pattern();
    const bool wide = input.number(2) == 1;
    const size_t num_merges = input.number(256), shift = input.number(1000);
    const size_t num_ids = wide && input.number(64) == 63 ? 70'000 : 0;  // some beyond 16 bits
    const size_t num_odd = input.number(2);
    PieceCounter counter;
    counter.add_text(pattern, Exact(input.take(input.number(1000))));
    const std::vector<Pair> merges = learn_merges(counter, num_merges, [] {});
    const Vocabulary vocabulary = learned_vocabulary(merges, num_ids ? num_ids - shift : shift, num_ids);
    const Encoder encoder(vocabulary);
    require(encoder.num_ids() == vocabulary.tokens.size(), "every id is counted");
    if (num_odd) {
        const std::vector<int64_t> ids = odd_ids(input, encoder.num_ids());
        try_decode<int64_t>(encoder, vocabulary, ids);
        try_decode<uint16_t>(encoder, vocabulary, ids);
        try_decode<uint32_t>(encoder, vocabulary, ids);
        for (const int64_t id : ids) try_decode<int64_t>(encoder, vocabulary, std::vector<int64_t>{id});
    }
    const Exact text(input.rest());
    if (wide)
        try_encode<uint32_t>(encoder, vocabulary, pattern, text);
    else
        try_encode<uint16_t>(encoder, vocabulary, pattern, text);
}

// ---- v: an arbitrary vocabulary ----

void try_vocabulary(Input input) {
    const Pattern& pattern = input.pattern();
    Vocabulary vocabulary = learned_vocabulary({}, 0, 0);
    const auto any_id = [&] {  // now and then none
        const size_t id = input.number(vocabulary.tokens.size() + 2);
        return static_cast<TokenId>(id <= vocabulary.tokens.size() ? id : 0xFFFFFFFF);
    };
    const auto bytes_of = [&](TokenId id) { return id < vocabulary.tokens.size() ? vocabulary.tokens[id] : std::string(); };
    for (size_t i = input.number(256); i > 0 && !input.empty(); --i) {
        const auto next = static_cast<TokenId>(vocabulary.tokens.size());
        const size_t change = input.number(16);
        if (change < 9) {  // a merge and its token
            const TokenId left = any_id(), right = any_id();
            vocabulary.merges.push_back({left, right, next});
            vocabulary.tokens.push_back((bytes_of(left) + bytes_of(right)).substr(0, 10'000));
        } else if (change == 9) {
            const TokenId left = any_id(), right = any_id();
            vocabulary.merges.push_back({left, right, any_id()});
        } else if (change == 10) {
            vocabulary.whole_pieces.push_back(any_id());
        } else if (change == 11) {
            vocabulary.byte_ids[input.number(256)] = any_id();
        } else if (change == 12 && !vocabulary.merges.empty()) {  // the order of merges is free
            std::swap(vocabulary.merges.back(), vocabulary.merges[input.number(vocabulary.merges.size())]);
        } else if (change == 13) {
            vocabulary.tokens[input.number(vocabulary.tokens.size())] = input.take(input.number(4));
        } else {
            vocabulary.tokens.emplace_back(input.take(input.number(20)));
        }
    }
    std::unique_ptr<Encoder> encoder;
    try {
        encoder = std::make_unique<Encoder>(vocabulary);
    } catch (const std::invalid_argument&) {
        return;
    }
    const Exact text(input.rest());
    try_encode<uint16_t>(*encoder, vocabulary, pattern, text);
}

void try_input(const uint8_t* data, size_t size) {
    if (size == 0) return;
    Input input({reinterpret_cast<const char*>(data), size});
    switch (input.number(4)) {
        case 's' % 4: return try_split(input);
        case 't' % 4: return try_train(input);
        case 'e' % 4: return try_tokenizer(input);
        case 'v' % 4: return try_vocabulary(input);
    }
}

}  // namespace
}  // namespace alilama

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    alilama::try_input(data, size);
    return 0;
}
