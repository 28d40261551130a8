// Finds the documents in a text: a line that is exactly <|endoftext|> separates them. That line, its line end and the
// line end before it are the separator, so a document ends with its last character. Line ends are \n and \r\n.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace alilama {

// Parts of `text` between separators, in order, empty ones included: n separators make n + 1 parts. O(size).
std::vector<std::string_view> split_documents(std::string_view text);

// The stretches of `text` between occurrences of `tokens`: the leftmost is taken, of those that begin together the longest.
// O(size * tokens). Throws std::invalid_argument for an empty token.
std::vector<std::string_view> split_at_tokens(std::string_view text, const std::vector<std::string>& tokens);

// Largest position at which a text that goes on after `text` may be cut so that no piece, no character and no separator
// crosses the cut; 0 if there is none. What follows the cut is the rest of a line, so no separator's line begins there. It
// cuts after a letter or a number, before white space or a character beyond ASCII that is neither: right for a pattern whose
// pieces with a letter or a number all end there, and whose next piece does not depend on what was before. O(1) on ordinary
// text, O(size) at worst.
size_t find_word_cut(std::string_view text);

// The same, with cuts only after a separator: right for any pattern. O(size).
size_t find_document_cut(std::string_view text);

}  // namespace alilama
