// Logits of the next token on the CPU, from a cache of keys and values.
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "vectors.hpp"

namespace alilama {

// B batch, C = d_model, H heads, D = C / H head width, V vocabulary.
struct ModelShape {
    int64_t V, C, blocks, H, D, hidden;
};

// A matrix of torch.nn.Linear, (outputs, inputs): kLanes outputs lie beside each other, so that one input meets a vector of
// them. Outputs are padded with zeros to a multiple of kLanes.
class PackedMatrix {
public:
    PackedMatrix(const float* weight, int64_t outputs, int64_t inputs);

    int64_t outputs() const { return outputs_; }
    int64_t inputs() const { return inputs_; }
    int64_t panels() const { return round_up(outputs_, kLanes) / kLanes; }
    const float* panel(int64_t i) const { return &packed_[i * inputs_ * kLanes]; }  // (inputs, kLanes)

private:
    int64_t outputs_, inputs_;
    std::vector<float> packed_;
};

struct DecoderBlock {
    std::vector<float> norm_1;
    PackedMatrix Wqkv, out_proj;
    std::vector<float> norm_2;
    PackedMatrix up_proj, down_proj;
};

// The keys, or the values, that one row of a batch has seen in one block: kLanes positions lie beside each other,
// (H, capacity / kLanes, D, kLanes).
using RowCache = std::vector<float>;

// Computes the logits of the next token of several rows of text of up to `longest` tokens, each with a cache of the keys and
// values of what it read, in float32. With a context of N > 0 a token sees the N last positions only, itself among them, and
// memory stays as it is however much is read; with 0 it sees all of them.
class Decoder {
public:
    static constexpr int64_t kChunk = 64;                                              // tokens that are computed together
    static constexpr int64_t kMaxPositions = std::numeric_limits<int32_t>::max() / 2;  // distances have 32 bits

    // embedding is (V, C), norm_f (C,), slopes (H,); all are copied. `rows` is the size of the batch. A context is at most
    // kMaxPositions - kChunk; without one no more than kMaxPositions tokens can be read.
    Decoder(const ModelShape& shape, const float* embedding, std::vector<DecoderBlock> blocks, const float* norm_f,
            const float* slopes, int64_t rows, int64_t longest, int64_t context);

    // Lets rows[i] read the next lengths[i] >= 1 of the ids, and writes the logits after its last one, (n, V). O(parameters + C
    // * positions seen) for each token and V * C for each row; the weights are read once for kChunk tokens. Throws
    // std::invalid_argument for a row, a length or an id out of range or a row named twice, and std::bad_alloc, both before
    // anything is read.
    void read(const int64_t* ids, const int64_t* rows, const int64_t* lengths, int64_t n, float* logits, int num_threads);

    const ModelShape& shape() const { return shape_; }

private:
    struct Piece {  // tokens of a row within a chunk
        int64_t row, first, count;
    };

    void reserve(int64_t row, int64_t positions);
    void read_chunk(const int64_t* ids, const std::vector<Piece>& pieces, int64_t count, int num_threads);
    void attend_piece(const Piece& piece, int64_t block, int64_t h, float* scores);

    ModelShape shape_;
    PackedMatrix embedding_;
    std::vector<DecoderBlock> blocks_;
    std::vector<float> norm_f_, slopes_;
    int64_t longest_, context_, max_positions_;
    std::vector<int64_t> read_;                        // by row: how many tokens it has read
    std::vector<int64_t> capacity_;                    // by row: for how many positions its caches have room
    std::vector<RowCache> keys_, values_;              // by row and block
    std::vector<float> x_, normed_, wide_, attended_;  // of a chunk: (kChunk, C) and, for qkv and the hidden layer, wider
    std::vector<float> scores_;                        // by thread, of the queries that attend together, by slot
};

}  // namespace alilama
