// Learns a byte-level BPE vocabulary from counted pieces.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "counter.hpp"
#include "merges.hpp"

namespace alilama {

// Learns up to `num_merges` merges from pieces that begin as bytes (ids 0-255): each takes the most frequent pair of
// neighbours, on a tie the smaller (left id, right id), counted as they stand (three pairs in "aaaa"), and gives it the
// next id from 256 on (Sennrich et al. 2016, arXiv:1508.07909). Fewer come back when no pair is left.
// `on_progress` is called every 256 merges and may throw to stop. O((bytes + merges) log bytes) for bytes of distinct
// pieces; throws std::length_error where these reach 2 GiB.
std::vector<Pair> learn_merges(const PieceCounter& pieces, size_t num_merges, const std::function<void()>& on_progress);

}  // namespace alilama
