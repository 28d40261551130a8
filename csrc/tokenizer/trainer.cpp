#include "trainer.hpp"

#include <queue>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "bits.hpp"

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
    static constexpr uint32_t kNone = 0xFFFFFFFF;
    static constexpr size_t kAhead = 16;  // places that are fetched before they are merged, for they lie far apart

    struct Cell {
        TokenId id;
        uint32_t piece;
    };
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
    // A token beside the occurrences of the pair that is being merged.
    struct Neighbour {
        uint32_t entry = kNone;  // of its pair with the new token
        int64_t count = 0;
    };
    // All that stand on one side.
    struct Side {
        std::vector<Neighbour> by_id;
        std::vector<TokenId> met;
    };

    void count_bytes();
    uint32_t entry_of(TokenId left, TokenId right);
    void merge(uint32_t entry, TokenId id);
    template <class PairWith>
    void add(Side& side, TokenId neighbour, Position position, int64_t count, PairWith&& pair_with_new);
    template <class PairWith>
    void remove_old_pairs(Side& side, PairWith&& pair_with_old);

    std::vector<Cell> cells_;
    std::vector<int64_t> counts_;  // by piece
    std::vector<uint32_t> sizes_;  // by token id, in bytes
    PairMap entry_by_pair_;
    std::vector<PairEntry> entries_;
    std::priority_queue<Candidate> candidates_;
    Side before_, after_;
};

MergeState::MergeState(const PieceCounter& pieces) : sizes_(256, 1) {
    const size_t num_cells = pieces.piece_bytes() + pieces.num_pieces() + 1;
    constexpr size_t kMaxCells = (size_t{1} << 31) - 65536;  // the pairs, of which a merge makes two, have numbers of 32 bits
    if (num_cells > kMaxCells) throw std::length_error("the distinct pieces of the text take 2 GiB or more");
    cells_.reserve(num_cells);
    counts_.reserve(pieces.num_pieces());
    cells_.push_back({kEdge, 0});
    pieces.for_each([&](std::string_view piece, int64_t count) {
        const auto number = static_cast<uint32_t>(counts_.size());
        for (const char byte : piece) cells_.push_back({static_cast<uint8_t>(byte), number});
        cells_.push_back({kEdge, number});
        counts_.push_back(count);
    });
    count_bytes();
    for (uint32_t i = 0; i < entries_.size(); ++i) candidates_.push({entries_[i].count, entries_[i].pair, i});
}

// Makes the entries of the pairs of bytes.
void MergeState::count_bytes() {
    const auto for_each_pair = [&](auto&& on_pair) {
        for (Position p = 1; p < cells_.size(); ++p)
            if (cells_[p - 1].id != kEdge && cells_[p].id != kEdge) on_pair(p - 1, cells_[p - 1].id << 8 | cells_[p].id);
    };
    std::vector<uint32_t> numbers(65536), entries(65536);
    for_each_pair([&](Position, uint32_t pair) { ++numbers[pair]; });
    for (uint32_t pair = 0; pair < numbers.size(); ++pair) {
        if (numbers[pair] == 0) continue;
        entries[pair] = entry_of(pair >> 8, pair & 0xFF);
        entries_[entries[pair]].positions.reserve(numbers[pair]);
    }
    for_each_pair([&](Position p, uint32_t pair) {
        PairEntry& entry = entries_[entries[pair]];
        entry.count += counts_[cells_[p].piece];
        entry.positions.push_back(p);
    });
}

uint32_t MergeState::entry_of(TokenId left, TokenId right) {
    const auto next = static_cast<uint32_t>(entries_.size());
    const uint32_t entry = entry_by_pair_.find_or_insert(left, right, next);
    if (entry == next) entries_.push_back({{left, right}, 0, {}});
    return entry;
}

// Counts an occurrence at `position` of the pair of a neighbour and the new token.
template <class PairWith>
void MergeState::add(Side& side, TokenId neighbour, Position position, int64_t count, PairWith&& pair_with_new) {
    Neighbour& known = side.by_id[neighbour];
    if (known.entry == kNone) {
        const auto [left, right] = pair_with_new(neighbour);
        known.entry = entry_of(left, right);
        side.met.push_back(neighbour);
    }
    known.count += count;
    entries_[known.entry].positions.push_back(position);
}

// Gives the counts of one side's neighbours to their pairs with the new token and takes them from those with the old one.
template <class PairWith>
void MergeState::remove_old_pairs(Side& side, PairWith&& pair_with_old) {
    for (const TokenId neighbour : side.met) {
        const auto [left, right] = pair_with_old(neighbour);
        entries_[entry_of(left, right)].count -= side.by_id[neighbour].count;
        side.by_id[neighbour] = {};
    }
    side.met.clear();
}

void MergeState::merge(uint32_t entry, TokenId id) {
    const Pair pair = entries_[entry].pair;
    const TokenId left = pair.first, right = pair.second;
    const uint32_t left_size = sizes_[left], right_size = sizes_[right];
    sizes_.push_back(left_size + right_size);
    before_.by_id.resize(sizes_.size());
    after_.by_id.resize(sizes_.size());
    const std::vector<Position> positions = std::move(entries_[entry].positions);
    const size_t first_new_entry = entries_.size();
    int64_t merged = 0;
    for (size_t i = 0; i < positions.size(); ++i) {
        if (i + kAhead < positions.size()) prefetch(&cells_[positions[i + kAhead]]);
        if (i + kAhead / 2 < positions.size()) prefetch(&counts_[cells_[positions[i + kAhead / 2]].piece]);
        const Position p = positions[i];
        const Position q = p + left_size;
        if (cells_[p].id != left || q >= cells_.size() || cells_[q].id != right) continue;
        const Position last = q + right_size - 1;
        const int64_t count = counts_[cells_[p].piece];
        const TokenId before = cells_[p - 1].id, after = cells_[last + 1].id;
        cells_[q - 1].id = cells_[q].id = kInside;
        cells_[p].id = cells_[last].id = id;
        merged += count;
        if (before != kEdge)
            add(before_, before, p - sizes_[before], count, [&](TokenId neighbour) { return Pair(neighbour, id); });
        if (after != kEdge) add(after_, after, p, count, [&](TokenId neighbour) { return Pair(id, neighbour); });
    }
    entries_[entry].count -= merged;
    for (const TokenId neighbour : before_.met)
        entries_[before_.by_id[neighbour].entry].count += before_.by_id[neighbour].count;
    for (const TokenId neighbour : after_.met) entries_[after_.by_id[neighbour].entry].count += after_.by_id[neighbour].count;
    remove_old_pairs(before_, [&](TokenId neighbour) { return Pair(neighbour, left); });
    remove_old_pairs(after_, [&](TokenId neighbour) { return Pair(right, neighbour); });
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
