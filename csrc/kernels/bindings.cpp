// The Python face of the kernels. They are not in the tokenizer's module, since they need OpenMP and it does not.
// bfloat16 tensors come as arrays of uint16, their bits.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "../bindings.hpp"
#include "attention.hpp"
#include "decoder.hpp"

namespace py = pybind11;

namespace alilama {
namespace {

// A decoder, which one call uses at a time: `is_used` is guarded by the GIL, which a call releases.
struct SharedDecoder {
    static constexpr const char* kTaken = "another thread uses this Decoder: give each thread its own";
    Decoder decoder;
    bool is_used = false;
};

}  // namespace
}  // namespace alilama

namespace pybind11::detail {

template <>
struct type_caster<alilama::SharedDecoder> : made_caster<alilama::SharedDecoder> {};

}  // namespace pybind11::detail

namespace alilama {
namespace {

static_assert(sizeof(BFloat16) == sizeof(uint16_t));

template <class Element>
using Array = py::array_t<Element, py::array::c_style>;

using Shape = std::initializer_list<int64_t>;

template <class Numbers>
std::string written(const Numbers& shape) {
    std::string text;
    for (const int64_t size : shape) text += (text.empty() ? "" : ", ") + std::to_string(size);
    return "(" + text + ")";
}

// Throws std::invalid_argument unless the array called `name` has that shape and may be read where it is.
template <class Element>
void check(const Array<Element>& array, Shape shape, const char* name) {
    const std::vector<int64_t> found(array.shape(), array.shape() + array.ndim());
    if (!std::equal(found.begin(), found.end(), shape.begin(), shape.end()))
        throw std::invalid_argument(std::string(name) + " has the shape " + written(found) + "; expected " + written(shape));
    if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
        throw std::invalid_argument(std::string(name) + " does not begin at a multiple of the size of its numbers");
}

// The numbers of the array called `name`, which has that shape. `Number` is float, or BFloat16 for arrays of uint16.
template <class Number, class Element>
const Number* numbers(const Array<Element>& array, Shape shape, const char* name) {
    check(array, shape, name);
    return reinterpret_cast<const Number*>(array.data());
}

bool share_memory(const py::array& a, const py::array& b) {
    const auto begin = [](const py::array& each) { return reinterpret_cast<uintptr_t>(each.data()); };
    const auto end = [&](const py::array& each) { return begin(each) + static_cast<uintptr_t>(each.nbytes()); };
    return begin(a) < end(b) && begin(b) < end(a);
}

// The same to write to: it shares no memory with `inputs`.
template <class Number, class Element, class... Inputs>
Number* output(Array<Element>& array, Shape shape, const char* name, const Inputs&... inputs) {
    check(array, shape, name);
    if (!array.writeable()) throw std::invalid_argument(std::string(name) + " is written to, but is read-only");
    if ((share_memory(array, inputs) || ...))
        throw std::invalid_argument(std::string(name) + " shares memory with another array, which is read meanwhile");
    return reinterpret_cast<Number*>(array.mutable_data());
}

void check_threads(int num_threads) {
    constexpr int kMaxThreads = 1024;
    if (num_threads < 1 || num_threads > kMaxThreads)
        throw std::invalid_argument("num_threads = " + std::to_string(num_threads) + ": expected 1 to " +
                                    std::to_string(kMaxThreads));
}

template <class Element>
AttentionShape shape_of(const Array<Element>& qkv) {
    const std::vector<int64_t> shape(qkv.shape(), qkv.shape() + qkv.ndim());
    if (shape.size() != 5 || shape[2] != 3 || shape[3] < 1 || shape[4] < 1)
        throw std::invalid_argument("qkv has the shape " + written(shape) + "; expected (B, T, 3, H, D)");
    return {shape[0], shape[1], shape[3], shape[4]};
}

// The arrays may be changed by Python while the GIL is released, which changes numbers and nothing else.
template <class Number, class Element>
void forward(const Array<Element>& qkv, const Array<float>& slopes, Array<Element> y, Array<float> logsumexp, int num_threads) {
    const AttentionShape shape = shape_of(qkv);
    const auto [B, T, H, D] = shape;
    check_threads(num_threads);
    const Number* from = numbers<Number>(qkv, {B, T, 3, H, D}, "qkv");
    const float* slope = numbers<float>(slopes, {H}, "slopes");
    Number* to = output<Number>(y, {B, T, H, D}, "y", qkv, slopes);
    float* lse = output<float>(logsumexp, {B, H, T}, "logsumexp", qkv, slopes, y);
    if (qkv.size() == 0) return;
    py::gil_scoped_release without_gil;
    attention_forward(shape, from, slope, to, lse, num_threads);
}

template <class Number, class Element>
void backward(const Array<Element>& qkv, const Array<float>& slopes, const Array<float>& logsumexp,
              const Array<Element>& grad_y, Array<Element> grad_qkv, int num_threads) {
    const AttentionShape shape = shape_of(qkv);
    const auto [B, T, H, D] = shape;
    check_threads(num_threads);
    const Number* from = numbers<Number>(qkv, {B, T, 3, H, D}, "qkv");
    const float* slope = numbers<float>(slopes, {H}, "slopes");
    const float* lse = numbers<float>(logsumexp, {B, H, T}, "logsumexp");
    const Number* grad = numbers<Number>(grad_y, {B, T, H, D}, "grad_y");
    Number* to = output<Number>(grad_qkv, {B, T, 3, H, D}, "grad_qkv", qkv, slopes, logsumexp, grad_y);
    if (qkv.size() == 0) return;
    py::gil_scoped_release without_gil;
    attention_backward(shape, from, slope, lse, grad, to, num_threads);
}

// The weights of a block by their names in alilama/model/model.py.
using BlockArrays = std::map<std::string, Array<float>>;

const Array<float>& weight(const BlockArrays& block, const char* name) {
    const auto found = block.find(name);
    if (found == block.end()) throw std::invalid_argument(std::string("a block has no weight ") + name);
    return found->second;
}

std::unique_ptr<SharedDecoder> make_decoder(const Array<float>& embedding, const std::vector<BlockArrays>& blocks,
                                            const Array<float>& norm_f, const Array<float>& slopes, int64_t rows,
                                            int64_t longest, int64_t context) {
    if (embedding.ndim() != 2 || embedding.size() == 0) throw std::invalid_argument("the embedding is not a matrix");
    if (blocks.empty() || slopes.size() == 0) throw std::invalid_argument("there are no blocks, or no heads");
    const Array<float>& up_proj = weight(blocks[0], "ffn.up_proj");
    if (up_proj.ndim() != 2 || up_proj.size() == 0) throw std::invalid_argument("ffn.up_proj is not a matrix");
    ModelShape shape;
    shape.V = embedding.shape(0);
    shape.C = embedding.shape(1);
    shape.blocks = static_cast<int64_t>(blocks.size());
    shape.H = slopes.size();
    shape.D = shape.C / shape.H;
    shape.hidden = up_proj.shape(0);
    constexpr int64_t kMaxRows = int64_t{1} << 20, kMaxLongest = std::numeric_limits<int64_t>::max() - 1024;  // so that no sum
    constexpr int64_t kMaxContext = Decoder::kMaxPositions - Decoder::kChunk;                                 // overflows
    if (shape.C % shape.H != 0) throw std::invalid_argument(std::to_string(shape.H) + " heads do not divide d_model");
    if (rows < 1 || rows > kMaxRows || longest < 1 || longest > kMaxLongest || context < 0 || context > kMaxContext)
        throw std::invalid_argument("rows = " + std::to_string(rows) + ", longest = " + std::to_string(longest) +
                                    ", context = " + std::to_string(context) + ": expected 1 to " + std::to_string(kMaxRows) +
                                    " rows, longest from 1 to " + std::to_string(kMaxLongest) +
                                    ", and 0 or a context of at most " + std::to_string(kMaxContext));
    const int64_t C = shape.C, hidden = shape.hidden;
    const auto vector = [](const BlockArrays& block, const char* name, int64_t size) {
        const float* first = numbers<float>(weight(block, name), {size}, name);
        return std::vector<float>(first, first + size);
    };
    const auto matrix = [](const BlockArrays& block, const char* name, int64_t outputs, int64_t inputs) {
        return PackedMatrix(numbers<float>(weight(block, name), {outputs, inputs}, name), outputs, inputs);
    };
    std::vector<DecoderBlock> packed;
    for (const BlockArrays& block : blocks) {
        packed.push_back({vector(block, "norm_1", C), matrix(block, "attn.Wqkv", 3 * C, C),
                          matrix(block, "attn.out_proj", C, C), vector(block, "norm_2", C),
                          matrix(block, "ffn.up_proj", hidden, C), matrix(block, "ffn.down_proj", C, hidden)});
    }
    return std::unique_ptr<SharedDecoder>(new SharedDecoder{
        Decoder(shape, numbers<float>(embedding, {shape.V, C}, "embedding"), std::move(packed),
                numbers<float>(norm_f, {C}, "norm_f"), numbers<float>(slopes, {shape.H}, "slopes"), rows, longest, context)});
}

// A copy, which nobody changes while the GIL is released, of an array of `size` numbers, or of as many as there are.
std::vector<int64_t> copied(const Array<int64_t>& array, int64_t size, const char* name) {
    const int64_t* first = numbers<int64_t>(array, {size}, name);
    return std::vector<int64_t>(first, first + size);
}

void read(SharedDecoder& shared, const Array<int64_t>& ids, const Array<int64_t>& rows, const Array<int64_t>& lengths,
          Array<float> logits, int num_threads) {
    check_threads(num_threads);
    const std::vector<int64_t> row = copied(rows, rows.size(), "rows");
    const auto n = static_cast<int64_t>(row.size());
    const std::vector<int64_t> length = copied(lengths, n, "lengths");
    int64_t total = 0;
    for (const int64_t each : length) {
        if (each > ids.size() - total)
            throw std::invalid_argument("lengths ask for more ids than there are, " + std::to_string(ids.size()));
        total += std::max<int64_t>(each, 0);
    }
    const std::vector<int64_t> id = copied(ids, total, "ids");
    float* to = output<float>(logits, {n, shared.decoder.shape().V}, "logits");
    const Use use(shared);
    const py::gil_scoped_release without_gil;
    shared.decoder.read(id.data(), row.data(), length.data(), n, to, num_threads);
}

}  // namespace

PYBIND11_MODULE(_kernels, m) {
    m.doc() = "What the CPU computes by kernels of our own; see attention.hpp and decoder.hpp in csrc/kernels.";
    const auto qkv = py::arg("qkv").noconvert();
    const auto y = py::arg("y").noconvert(), grad_y = py::arg("grad_y").noconvert();
    const auto slopes = py::arg("slopes").noconvert(), logsumexp = py::arg("logsumexp").noconvert();
    const auto grad_qkv = py::arg("grad_qkv").noconvert(), threads = py::arg("num_threads");
    m.def("attention_forward", &forward<float, float>, qkv, slopes, y, logsumexp, threads);
    m.def("attention_forward", &forward<BFloat16, uint16_t>, qkv, slopes, y, logsumexp, threads);
    m.def("attention_backward", &backward<float, float>, qkv, slopes, logsumexp, grad_y, grad_qkv, threads);
    m.def("attention_backward", &backward<BFloat16, uint16_t>, qkv, slopes, logsumexp, grad_y, grad_qkv, threads);
    py::class_<SharedDecoder>(m, "Decoder")
        .def(py::init(&make_decoder), py::arg("embedding"), py::arg("blocks"), py::arg("norm_f"), py::arg("slopes"),
             py::arg("rows"), py::arg("longest"), py::arg("context"))
        .def("read", &read, py::arg("ids"), py::arg("rows"), py::arg("lengths"), py::arg("logits").noconvert(), threads);
}

}  // namespace alilama
