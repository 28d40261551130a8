#include "trainer.hpp"

#include <limits>
#include <queue>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace alilama {
namespace {

// All pieces in one array with a cell for each byte, kEdge between pieces. A token stands in its first and its last
// cell and kInside in those between, so both neighbours are found without links. Tokens only grow: a cell that once
// began a longer token can never end one, so a position whose pair still stands there is a true occurrence.
class MergeState {
public:
    explicit MergeState(const PieceCounter& pieces);

    std::vector<Pair> learn(size_t num_merges, const std::function<void()>& on_progress);

private:
    using Position = uint32_t;
    static constexpr TokenId kEdge = 0xFFFFFFFF;
    static constexpr TokenId kInside = 0xFFFFFFFE;

    struct PairEntry {
        Pair pair;
        int64_t count;
        std::vector<Position> positions;  // ascending; may hold places where the pair no longer stands
    };
    struct Candidate {
        int64_t count;
        Pair pair;
        uint32_t entry;
        bool operator<(const Candidate& other) const {  // the greatest is merged first
            return count != other.count ? count < other.count : pair > other.pair;
        }
    };

    uint32_t entry_of(TokenId left, TokenId right);
    void add(TokenId left, TokenId right, Position position, int64_t count);
    void remove(TokenId left, TokenId right, int64_t count);
    void merge(uint32_t entry, TokenId id);

    std::vector<TokenId> cells_;
    std::vector<uint32_t> piece_of_;  // by cell
    std::vector<int64_t> counts_;     // by piece
    std::vector<uint32_t> sizes_;     // by token id, in bytes
    PairMap entry_by_pair_;
    std::vector<PairEntry> entries_;
    std::priority_queue<Candidate> candidates_;
};

MergeState::MergeState(const PieceCounter& pieces) : sizes_(256, 1) {
    const size_t num_cells = pieces.piece_bytes() + pieces.num_pieces() + 1;
    if (num_cells >= std::numeric_limits<Position>::max())
        throw std::length_error("the distinct pieces of the text take 4 GiB or more");
    cells_.reserve(num_cells);
    piece_of_.reserve(num_cells);
    counts_.reserve(pieces.num_pieces());
    const auto push = [&](TokenId id) {
        cells_.push_back(id);
        piece_of_.push_back(static_cast<uint32_t>(counts_.size()));
    };
    push(kEdge);
    pieces.for_each([&](std::string_view piece, int64_t count) {
        for (const char byte : piece) push(static_cast<uint8_t>(byte));
        push(kEdge);
        counts_.push_back(count);
    });
    for (Position p = 1; p < cells_.size(); ++p)
        if (cells_[p - 1] != kEdge && cells_[p] != kEdge) add(cells_[p - 1], cells_[p], p - 1, counts_[piece_of_[p]]);
    for (uint32_t i = 0; i < entries_.size(); ++i) candidates_.push({entries_[i].count, entries_[i].pair, i});
}

uint32_t MergeState::entry_of(TokenId left, TokenId right) {
    const auto next = static_cast<uint32_t>(entries_.size());
    const uint32_t entry = entry_by_pair_.find_or_insert(left, right, next);
    if (entry == next) entries_.push_back({{left, right}, 0, {}});
    return entry;
}

void MergeState::add(TokenId left, TokenId right, Position position, int64_t count) {
    PairEntry& entry = entries_[entry_of(left, right)];
    entry.count += count;
    entry.positions.push_back(position);
}

void MergeState::remove(TokenId left, TokenId right, int64_t count) { entries_[entry_of(left, right)].count -= count; }

void MergeState::merge(uint32_t entry, TokenId id) {
    const auto [left, right] = entries_[entry].pair;
    const uint32_t left_size = sizes_[left], right_size = sizes_[right];
    sizes_.push_back(left_size + right_size);
    const std::vector<Position> positions = std::move(entries_[entry].positions);
    const size_t first_new_entry = entries_.size();
    for (const Position p : positions) {
        const Position q = p + left_size;
        if (cells_[p] != left || q >= cells_.size() || cells_[q] != right) continue;
        const Position last = q + right_size - 1;
        const int64_t count = counts_[piece_of_[p]];
        const TokenId before = cells_[p - 1], after = cells_[last + 1];
        cells_[q - 1] = cells_[q] = kInside;
        cells_[p] = cells_[last] = id;
        remove(left, right, count);
        if (before != kEdge) {
            remove(before, left, count);
            add(before, id, p - sizes_[before], count);
        }
        if (after != kEdge) {
            remove(right, after, count);
            add(id, after, p, count);
        }
    }
    // Only pairs with the new token became more frequent; the others' stale candidates are corrected when they surface.
    for (size_t i = first_new_entry; i < entries_.size(); ++i)
        if (entries_[i].count > 0) candidates_.push({entries_[i].count, entries_[i].pair, static_cast<uint32_t>(i)});
}

std::vector<Pair> MergeState::learn(size_t num_merges, const std::function<void()>& on_progress) {
    std::vector<Pair> merges;
    while (merges.size() < num_merges && !candidates_.empty()) {
        const Candidate best = candidates_.top();
        candidates_.pop();
        const int64_t count = entries_[best.entry].count;
        if (count < best.count) {
            if (count > 0) candidates_.push({count, best.pair, best.entry});
            continue;
        }
        if (merges.size() % 256 == 0) on_progress();
        merges.push_back(best.pair);
        merge(best.entry, static_cast<TokenId>(256 + merges.size() - 1));
    }
    return merges;
}

}  // namespace

std::vector<Pair> learn_merges(const PieceCounter& pieces, size_t num_merges, const std::function<void()>& on_progress) {
    return MergeState(pieces).learn(num_merges, on_progress);
}

}  // namespace alilama
