#include "decoder.hpp"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

namespace alilama {
namespace {

constexpr int kTokens = 6;   // that share the loading of a panel: as many sums as AVX2 has registers for
constexpr int kPanels = 4;   // that one token meets at once
constexpr int kQueries = 4;  // that attend together

enum class Then { kStore, kAdd, kGelu };  // what becomes of a product: y = Wx, y += Wx, y = gelu(Wx)

// x (1 + erf(x / sqrt 2)) / 2 with erf to 1.5e-7 (Abramowitz and Stegun 1964, 7.1.26).
INLINE Vector gelu(Vector x) {
    const Vector z = (x < 0.0f ? -x : x) * 0.707106781f;
    const Vector t = 1.0f / (1.0f + 0.3275911f * z);
    const Vector p = t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
    const Vector tail = 0.5f * p * exp(-z * z);  // (1 - erf z) / 2
    return x * (x < 0.0f ? tail : 1.0f - tail);
}

template <Then then>
INLINE void finish(Vector product, float* y, int64_t lanes) {
    if (then == Then::kGelu) product = gelu(product);
    if (lanes == kLanes) {
        store(y, then == Then::kAdd ? load(y) + product : product);
    } else {
        for (int64_t lane = 0; lane < lanes; ++lane) y[lane] = then == Then::kAdd ? y[lane] + product[lane] : product[lane];
    }
}

// `tokens` rows of x, (tokens, inputs), with `panels` panels of a matrix, from `panel` on.
template <Then then, int tokens, int panels>
INLINE void multiply_tile(const PackedMatrix& matrix, int64_t panel, const float* x, float* y) {
    const int64_t inputs = matrix.inputs(), outputs = matrix.outputs();
    const float* weights = matrix.panel(panel);
    Vector total[tokens][panels] = {};
    for (int64_t i = 0; i < inputs; ++i) {
        for (int p = 0; p < panels; ++p) {
            const Vector column = load(weights + (p * inputs + i) * kLanes);
            for (int t = 0; t < tokens; ++t) total[t][p] += x[t * inputs + i] * column;
        }
    }
    for (int t = 0; t < tokens; ++t) {
        for (int p = 0; p < panels; ++p) {
            const int64_t first = (panel + p) * kLanes;
            finish<then>(total[t][p], y + t * outputs + first, std::min<int64_t>(kLanes, outputs - first));
        }
    }
}

// The same for any number of panels, `together` of them at once where there are enough.
template <Then then, int tokens, int together>
INLINE void multiply_tiles(const PackedMatrix& matrix, int64_t panel, int64_t panels, const float* x, float* y) {
    const int64_t end = panel + panels;
    for (; panel + together <= end; panel += together) multiply_tile<then, tokens, together>(matrix, panel, x, y);
    for (; panel < end; ++panel) multiply_tile<then, tokens, 1>(matrix, panel, x, y);
}

template <Then then>
INLINE void multiply_panels(const PackedMatrix& matrix, int64_t panel, int64_t panels, const float* x, int64_t tokens,
                            float* y) {
    for (; tokens >= kTokens; tokens -= kTokens, x += kTokens * matrix.inputs(), y += kTokens * matrix.outputs())
        multiply_tiles<then, kTokens, 1>(matrix, panel, panels, x, y);
    switch (tokens) {  // enough sums at once that none waits for the one before
        case 1: return multiply_tiles<then, 1, kPanels>(matrix, panel, panels, x, y);
        case 2: return multiply_tiles<then, 2, 2>(matrix, panel, panels, x, y);
        case 3: return multiply_tiles<then, 3, 2>(matrix, panel, panels, x, y);
        case 4: return multiply_tiles<then, 4, 1>(matrix, panel, panels, x, y);
        case 5: return multiply_tiles<then, 5, 1>(matrix, panel, panels, x, y);
    }
}

// Panels [panel, panel + panels) of y = Wx, (tokens, outputs), for x, (tokens, inputs).
FOR_EVERY_CPU void multiply(Then then, const PackedMatrix& matrix, int64_t panel, int64_t panels, const float* x,
                            int64_t tokens, float* y) {
    switch (then) {
        case Then::kStore: return multiply_panels<Then::kStore>(matrix, panel, panels, x, tokens, y);
        case Then::kAdd: return multiply_panels<Then::kAdd>(matrix, panel, panels, x, tokens, y);
        case Then::kGelu: return multiply_panels<Then::kGelu>(matrix, panel, panels, x, tokens, y);
    }
}

// y = Wx by all threads of the parallel region that this is called in, which wait for each other at its end.
void multiply_together(Then then, const PackedMatrix& matrix, const float* x, int64_t tokens, float* y) {
#pragma omp for schedule(static)
    for (int64_t panel = 0; panel < matrix.panels(); panel += kPanels)
        multiply(then, matrix, panel, std::min<int64_t>(kPanels, matrix.panels() - panel), x, tokens, y);
}

// torch.nn.LayerNorm with a weight and no bias, of one x, (C,).
void layer_norm(const float* x, const std::vector<float>& weight, float* y) {
    const size_t C = weight.size();
    float mean = 0, variance = 0;
    for (size_t c = 0; c < C; ++c) mean += x[c];
    mean /= static_cast<float>(C);
    for (size_t c = 0; c < C; ++c) variance += (x[c] - mean) * (x[c] - mean);
    const float scale = 1 / std::sqrt(variance / static_cast<float>(C) + 1e-5f);
    for (size_t c = 0; c < C; ++c) y[c] = (x[c] - mean) * scale * weight[c];
}

void layer_norm_together(const std::vector<float>& x, const std::vector<float>& weight, int64_t tokens, std::vector<float>& y) {
    const int64_t C = static_cast<int64_t>(weight.size());
#pragma omp for schedule(static)
    for (int64_t t = 0; t < tokens; ++t) layer_norm(&x[t * C], weight, &y[t * C]);
}

// What a query sees: slot s of a cache holds the newest of the row's positions that leave the remainder s when they are
// divided by the capacity.
struct View {
    int64_t query, newest, capacity;  // positions
    int64_t context;                  // how many of them it sees

    INLINE int64_t slots() const { return std::min(round_up(newest + 1, kLanes), capacity); }

    // How far before the query the positions of slots [slot, slot + kLanes) are; -1 where it sees none.
    INLINE IntVector distances(int64_t slot) const {
        const int64_t newest_slot = newest % capacity;
        const IntVector after = lane_indices() + static_cast<int32_t>(slot - newest_slot);  // slots after the newest
        const int32_t wrap = static_cast<int32_t>(capacity);
        const IntVector distance =
            static_cast<int32_t>(query - newest) - after + (after > 0 ? IntVector{} + wrap : IntVector{});
        const int32_t seen = static_cast<int32_t>(std::min(context, query + 1));
        return distance < seen ? distance : IntVector{} - 1;
    }
};

// Attention of some queries of one head that follow each other, the first of which `view` is of, over its keys and values,
// (slots / kLanes, D, kLanes): q is scaled, (queries, D) with rows `q_stride` apart, y the same with `y_stride`, and scores
// has room for (queries, slots).
template <int queries>
INLINE void attend_with(const float* q, int64_t q_stride, const float* keys, const float* values, float slope, const View& view,
                        int64_t D, float* scores, float* y, int64_t y_stride) {
    const int64_t slots = view.slots();
    Vector top[queries];
    for (int r = 0; r < queries; ++r) top[r] = Vector{} - INFINITY;
    for (int64_t slot = 0; slot < slots; slot += kLanes, keys += D * kLanes) {
        Vector score[queries] = {};
        for (int64_t d = 0; d < D; ++d) {
            const Vector key = load(keys + d * kLanes);
            for (int r = 0; r < queries; ++r) score[r] += q[r * q_stride + d] * key;
        }
        for (int r = 0; r < queries; ++r) {
            const IntVector distance = View{view.query + r, view.newest, view.capacity, view.context}.distances(slot);
            const Vector biased = with_bias(score[r], slope, __builtin_convertvector(distance, Vector));
            const Vector seen = distance < 0 ? Vector{} - INFINITY : biased;
            top[r] = larger(seen, top[r]);
            store(scores + r * slots + slot, seen);
        }
    }
    float normaliser[queries];
    for (int r = 0; r < queries; ++r) normaliser[r] = 1 / exponentiate(scores + r * slots, slots, maximum(top[r]));
    constexpr int kTogether = 8 / queries;  // numbers of a head whose sums stay in registers
    for (int64_t first = 0; first < D; first += kTogether) {
        const int64_t n = std::min<int64_t>(kTogether, D - first);
        Vector sums[queries][kTogether] = {};
        const float* value = values + first * kLanes;
        for (int64_t slot = 0; slot < slots; slot += kLanes, value += D * kLanes) {
            for (int r = 0; r < queries; ++r) {
                const Vector p = load(scores + r * slots + slot);
                if (n == kTogether) {
                    for (int d = 0; d < kTogether; ++d) sums[r][d] += p * load(value + d * kLanes);
                } else {
                    for (int64_t d = 0; d < n; ++d) sums[r][d] += p * load(value + d * kLanes);
                }
            }
        }
        for (int r = 0; r < queries; ++r)
            for (int64_t d = 0; d < n; ++d) y[r * y_stride + first + d] = sum(sums[r][d]) * normaliser[r];
    }
}

FOR_EVERY_CPU void attend(const float* q, const float* keys, const float* values, float slope, const View& view, int64_t D,
                          float* scores, float* y) {
    attend_with<1>(q, 0, keys, values, slope, view, D, scores, y, 0);
}

// kQueries of them, which share the loading of keys and values.
FOR_EVERY_CPU void attend_together(const float* q, int64_t q_stride, const float* keys, const float* values, float slope,
                                   const View& view, int64_t D, float* scores, float* y, int64_t y_stride) {
    attend_with<kQueries>(q, q_stride, keys, values, slope, view, D, scores, y, y_stride);
}

void prefetch(const float* first, int64_t size) {
    for (int64_t i = 0; i < size; i += kLanes) __builtin_prefetch(first + i, 1, 2);
}

}  // namespace

PackedMatrix::PackedMatrix(const float* weight, int64_t outputs, int64_t inputs)
    : outputs_(outputs), inputs_(inputs), packed_(round_up(outputs, kLanes) * inputs) {
    for (int64_t out = 0; out < outputs; ++out) {
        float* panel = &packed_[out / kLanes * inputs * kLanes];
        for (int64_t in = 0; in < inputs; ++in) panel[in * kLanes + out % kLanes] = weight[out * inputs + in];
    }
}

Decoder::Decoder(const ModelShape& shape, const float* embedding, std::vector<DecoderBlock> blocks, const float* norm_f,
                 const float* slopes, int64_t rows, int64_t longest, int64_t context)
    : shape_(shape),
      embedding_(embedding, shape.V, shape.C),
      blocks_(std::move(blocks)),
      norm_f_(norm_f, norm_f + shape.C),
      slopes_(slopes, slopes + shape.H),
      longest_(context > 0 ? longest : std::min(longest, kMaxPositions)),
      context_(context > 0 ? context : longest_),
      max_positions_(round_up(context > 0 ? std::min(longest, context + kChunk) : longest_, kLanes)),
      read_(rows),
      capacity_(rows),
      keys_(rows * shape.blocks),
      values_(rows * shape.blocks),
      x_(kChunk * shape.C),
      normed_(kChunk * shape.C),
      wide_(kChunk * std::max(3 * shape.C, shape.hidden)),
      attended_(kChunk * shape.C) {}

void Decoder::read(const int64_t* ids, const int64_t* rows, const int64_t* lengths, int64_t n, float* logits, int num_threads) {
    int64_t total = 0;
    std::vector<bool> is_named(read_.size());
    for (int64_t i = 0; i < n; ++i) {
        const int64_t row = rows[i], num_rows = static_cast<int64_t>(read_.size());
        if (row < 0 || row >= num_rows)
            throw std::invalid_argument("row " + std::to_string(row) + " of " + std::to_string(num_rows) + " does not exist");
        if (is_named[row]) throw std::invalid_argument("row " + std::to_string(row) + " is named twice");
        is_named[row] = true;
        if (lengths[i] < 1)
            throw std::invalid_argument("row " + std::to_string(row) + " would read " + std::to_string(lengths[i]) +
                                        " tokens; expected at least 1");
        if (lengths[i] > longest_ - read_[row])
            throw std::invalid_argument("row " + std::to_string(row) + " holds " + std::to_string(read_[row]) +
                                        " tokens and would read " + std::to_string(lengths[i]) + " more; longest is " +
                                        std::to_string(longest_));
        total += lengths[i];
    }
    for (int64_t i = 0; i < total; ++i)
        if (ids[i] < 0 || ids[i] >= shape_.V)
            throw std::invalid_argument("id " + std::to_string(ids[i]) + ": expected 0 to " + std::to_string(shape_.V - 1));
    int64_t max_slots = 0;
    for (int64_t i = 0; i < n; ++i) {
        reserve(rows[i], read_[rows[i]] + lengths[i]);
        max_slots = std::max(max_slots, capacity_[rows[i]]);
    }
    scores_.resize(std::max<size_t>(scores_.size(), num_threads * kQueries * max_slots));
    std::vector<float> last(n * shape_.C);  // x after the last token of each row
    std::vector<Piece> pieces;
    std::vector<int64_t> ends;  // rows of `last` by token of the chunk, -1 for tokens in between
    pieces.reserve(kChunk);
    ends.reserve(kChunk);
    int64_t first = 0;
    const auto flush = [&] {
        const int64_t count = static_cast<int64_t>(ends.size());
        read_chunk(ids + first, pieces, count, num_threads);
        for (int64_t t = 0; t < count; ++t)
            if (ends[t] >= 0) layer_norm(&x_[t * shape_.C], norm_f_, &last[ends[t] * shape_.C]);
        first += count;
        pieces.clear();
        ends.clear();
    };
    for (int64_t i = 0; i < n; ++i) {
        for (int64_t left = lengths[i]; left > 0;) {
            const int64_t begin = static_cast<int64_t>(ends.size()), count = std::min(left, kChunk - begin);
            pieces.push_back({rows[i], begin, count});
            ends.resize(begin + count, -1);
            left -= count;
            if (left == 0) ends.back() = i;
            if (static_cast<int64_t>(ends.size()) == kChunk) flush();
        }
    }
    if (!ends.empty()) flush();
#pragma omp parallel num_threads(num_threads)
    multiply_together(Then::kStore, embedding_, last.data(), n, logits);
}

// Makes room in a row's caches. With a context they end as rings that hold what every token of a chunk sees; until then a
// position is its slot, so that they may grow. Where memory does not suffice they stay as they are.
void Decoder::reserve(int64_t row, int64_t positions) {
    const int64_t old_capacity = capacity_[row], needed = std::min(positions, max_positions_);
    if (old_capacity >= needed) return;
    const int64_t capacity = std::min(round_up(std::max(needed, 2 * old_capacity), kLanes), max_positions_);
    const int64_t old_size = old_capacity * shape_.D, size = capacity * shape_.D;  // of a head
    std::vector<RowCache> grown;
    for (int64_t block = row * shape_.blocks; block < (row + 1) * shape_.blocks; ++block) {
        for (const RowCache* cache : {&keys_[block], &values_[block]}) {
            grown.emplace_back(shape_.H * size);
            for (int64_t h = 0; h < shape_.H; ++h)
                std::copy_n(cache->begin() + h * old_size, old_size, grown.back().begin() + h * size);
        }
    }
    for (int64_t block = 0; block < shape_.blocks; ++block) {
        keys_[row * shape_.blocks + block] = std::move(grown[2 * block]);
        values_[row * shape_.blocks + block] = std::move(grown[2 * block + 1]);
    }
    capacity_[row] = capacity;
}

void Decoder::read_chunk(const int64_t* ids, const std::vector<Piece>& pieces, int64_t count, int num_threads) {
    const int64_t C = shape_.C, H = shape_.H;
    const int64_t slots_of_thread = static_cast<int64_t>(scores_.size()) / num_threads;
    for (int64_t t = 0; t < count; ++t) {
        const float* panel = embedding_.panel(ids[t] / kLanes);
        for (int64_t c = 0; c < C; ++c) x_[t * C + c] = panel[c * kLanes + ids[t] % kLanes];
    }
#pragma omp parallel num_threads(num_threads)
    for (int64_t block = 0; block < shape_.blocks; ++block) {
        const DecoderBlock& weights = blocks_[block];
        layer_norm_together(x_, weights.norm_1, count, normed_);
        multiply_together(Then::kStore, weights.Wqkv, normed_.data(), count, wide_.data());
#pragma omp for schedule(static)
        for (int64_t task = 0; task < static_cast<int64_t>(pieces.size()) * H; ++task)
            attend_piece(pieces[task / H], block, task % H, &scores_[omp_get_thread_num() * slots_of_thread]);
        multiply_together(Then::kAdd, weights.out_proj, attended_.data(), count, x_.data());
        layer_norm_together(x_, weights.norm_2, count, normed_);
        multiply_together(Then::kGelu, weights.up_proj, normed_.data(), count, wide_.data());
        multiply_together(Then::kAdd, weights.down_proj, wide_.data(), count, x_.data());
    }
    for (const Piece& piece : pieces) read_[piece.row] += piece.count;
}

// Writes the keys and values of a piece's tokens in one head into the row's caches, and lets the tokens attend.
void Decoder::attend_piece(const Piece& piece, int64_t block, int64_t h, float* scores) {
    const int64_t C = shape_.C, D = shape_.D, capacity = capacity_[piece.row], begin = read_[piece.row];
    const float scale = 1 / std::sqrt(static_cast<float>(D));
    float* keys = keys_[piece.row * shape_.blocks + block].data() + h * capacity * D;
    float* values = values_[piece.row * shape_.blocks + block].data() + h * capacity * D;
    for (int64_t t = 0; t < piece.count; ++t) {
        float* q = &wide_[(piece.first + t) * 3 * C + h * D];
        const int64_t slot = (begin + t) % capacity, at = slot / kLanes * D * kLanes + slot % kLanes;
        for (int64_t d = 0; d < D; ++d) {
            keys[at + d * kLanes] = q[C + d];
            values[at + d * kLanes] = q[2 * C + d];
            q[d] *= scale;
        }
    }
    const int64_t next = h + 1 < shape_.H ? capacity * D : 0;  // the next head's keys and values come while this one's
    const int64_t size = std::min(round_up(begin + 1, kLanes), capacity) * D;  // are computed with
    prefetch(keys + next, size);
    prefetch(values + next, size);
    View view{begin, begin + piece.count - 1, capacity, context_};
    for (int64_t t = 0; t < piece.count;) {
        const float* q = &wide_[(piece.first + t) * 3 * C + h * D];
        float* y = &attended_[(piece.first + t) * C + h * D];
        view.query = begin + t;
        if (piece.count - t >= kQueries) {
            attend_together(q, 3 * C, keys, values, slopes_[h], view, D, scores, y, C);
            t += kQueries;
        } else {
            attend(q, keys, values, slopes_[h], view, D, scores, y);
            ++t;
        }
    }
}

}  // namespace alilama
