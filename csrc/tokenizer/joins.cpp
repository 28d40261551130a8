#include "joins.hpp"

namespace alilama {
namespace {

bool continues(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) == 0x80; }

// Size of the character that the first byte announces, 0 if it can begin none.
size_t size_of_char(char first) {
    const auto byte = static_cast<uint8_t>(first);
    return byte < 0x80 ? 1 : byte < 0xC0 ? 0 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

void Joins::add(std::string_view token) {
    const auto* p = reinterpret_cast<const uint8_t*>(token.data());
    for (size_t i = 1; i < token.size(); ++i) {
        if (continues(token[i])) continue;
        size_t begin = i - 1, end = i + 1;
        while (begin > 0 && continues(token[begin])) --begin;
        while (end < token.size() && continues(token[end])) ++end;
        const size_t left_size = i - begin, right_size = size_of_char(token[i]);
        const bool are_whole = size_of_char(token[begin]) == left_size && right_size != 0 && i + right_size <= end;
        if (!are_whole) {
            set(bytes_, place_of_bytes(p[i - 1], p[i]));
        } else if (left_size > 1 && right_size > 1) {
            set(pairs_, place_of(read_bytes(p + begin, left_size), read_bytes(p + i, right_size)));
        }
    }
}

}  // namespace alilama
