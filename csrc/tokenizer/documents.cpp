#include "documents.hpp"

#include <cstdint>
#include <stdexcept>

#include "unicode.hpp"

namespace alilama {
namespace {

constexpr std::string_view kSeparatorLine = "<|endoftext|>";

// Size of the line end that begins at `position`, 0 if there is none.
size_t line_end_size(std::string_view text, size_t position) {
    if (text.substr(position, 1) == "\n") return 1;
    return text.substr(position, 2) == "\r\n" ? 2 : 0;
}

struct Separator {
    size_t begin, end;
};

// The separator whose line stands at `line`, if it does: begin == end otherwise. `floor` is where the last one ended.
Separator separator_at(std::string_view text, size_t line, size_t floor) {
    const size_t line_end = line + kSeparatorLine.size();
    const size_t after = line_end_size(text, line_end);
    if (after == 0 && line_end != text.size()) return {line, line};
    if (line == floor) return {line, line_end + after};
    if (text[line - 1] != '\n') return {line, line};
    const size_t before = line - floor >= 2 && text[line - 2] == '\r' ? 2 : 1;
    return {line - before, line_end + after};
}

}  // namespace

std::vector<std::string_view> split_documents(std::string_view text) {
    std::vector<std::string_view> parts;
    size_t begin = 0;
    for (size_t at = text.find(kSeparatorLine); at != std::string_view::npos;) {
        const Separator separator = separator_at(text, at, begin);
        if (separator.begin == separator.end) {
            at = text.find(kSeparatorLine, at + 1);
            continue;
        }
        parts.push_back(text.substr(begin, separator.begin - begin));
        begin = separator.end;
        at = text.find(kSeparatorLine, begin);
    }
    parts.push_back(text.substr(begin));
    return parts;
}

std::vector<std::string_view> split_at_tokens(std::string_view text, const std::vector<std::string>& tokens) {
    std::vector<std::string_view> stretches;
    std::vector<size_t> next(tokens.size(), 0);  // where each token occurs next
    for (const std::string& token : tokens)
        if (token.empty()) throw std::invalid_argument("a token that text is cut at is empty");
    for (size_t i = 0; i < tokens.size(); ++i) next[i] = text.find(tokens[i]);
    size_t begin = 0;
    while (true) {
        size_t at = std::string_view::npos, size = 0;
        for (size_t i = 0; i < tokens.size(); ++i) {
            if (next[i] < begin) next[i] = text.find(tokens[i], begin);
            if (next[i] < at || (next[i] == at && at != std::string_view::npos && tokens[i].size() > size)) {
                at = next[i];
                size = tokens[i].size();
            }
        }
        if (at == std::string_view::npos) break;
        stretches.push_back(text.substr(begin, at - begin));
        begin = at + size;
    }
    stretches.push_back(text.substr(begin));
    return stretches;
}

// No letter of a separator stands before white space or a character beyond ASCII, so none is cut.
size_t find_word_cut(std::string_view text) {
    const auto* begin = reinterpret_cast<const uint8_t*>(text.data());
    const auto* end = begin + text.size();
    constexpr size_t kLongestChar = 4;
    if (text.size() < 2 * kLongestChar) return 0;
    for (const uint8_t* right = end - kLongestChar; right > begin; --right) {
        if (continues_char(*right)) continue;
        const Char after = read_char(right, end);
        if (after.cls != CharClass::kSpace && (*right < 0x80 || after.cls != CharClass::kOther)) continue;
        const uint8_t* left = right - 1;
        while (left > begin && right - left < static_cast<std::ptrdiff_t>(kLongestChar) && continues_char(*left)) --left;
        const Char before = read_char(left, end);
        const bool ends_here = left + before.size == right;
        if (ends_here && (before.cls == CharClass::kLetter || before.cls == CharClass::kNumber))
            return static_cast<size_t>(right - begin);
    }
    return 0;
}

size_t find_document_cut(std::string_view text) {
    const auto parts = split_documents(text);
    const bool complete = text.size() > 0 && text.back() == '\n';  // a separator at the very end may yet become a longer line
    const size_t usable = parts.size() - (parts.back().empty() && !complete ? 1 : 0);
    return usable < 2 ? 0 : static_cast<size_t>(parts[usable - 1].data() - text.data());
}

}  // namespace alilama
