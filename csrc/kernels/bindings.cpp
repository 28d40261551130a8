// The Python face of the kernels. They are not in the tokenizer's module, since they need OpenMP and it does not.
// bfloat16 tensors come as arrays of uint16, their bits.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attention.hpp"
#include "decoder.hpp"

namespace py = pybind11;

namespace alilama {
namespace {

static_assert(sizeof(BFloat16) == sizeof(uint16_t));

template <class Element>
using Array = py::array_t<Element, py::array::c_style>;

// Throws std::invalid_argument unless the array called `name` holds `size` numbers.
template <class Element>
void check_size(const Array<Element>& array, int64_t size, const char* name) {
    if (array.size() != size)
        throw std::invalid_argument(std::string(name) + " holds " + std::to_string(array.size()) +
                                    " numbers; the shapes of the others ask for " + std::to_string(size));
}

// The numbers of the array called `name`, which holds `size` of them. `Number` is float, or BFloat16 for arrays of uint16.
template <class Number, class Element>
const Number* numbers(const Array<Element>& array, int64_t size, const char* name) {
    check_size(array, size, name);
    return reinterpret_cast<const Number*>(array.data());
}

template <class Number, class Element>
Number* numbers(Array<Element>& array, int64_t size, const char* name) {
    check_size(array, size, name);
    return reinterpret_cast<Number*>(array.mutable_data());
}

template <class Element>
AttentionShape shape_of(const Array<Element>& qkv) {
    if (qkv.ndim() != 5 || qkv.shape(2) != 3) throw std::invalid_argument("qkv has another shape than (B, T, 3, H, D)");
    return {qkv.shape(0), qkv.shape(1), qkv.shape(3), qkv.shape(4)};
}

template <class Number, class Element>
void forward(const Array<Element>& qkv, const Array<float>& slopes, Array<Element> y, Array<float> logsumexp, int num_threads) {
    const AttentionShape shape = shape_of(qkv);
    const auto [B, T, H, D] = shape;
    const Number* from = numbers<Number>(qkv, 3 * B * T * H * D, "qkv");
    const float* slope = numbers<float>(slopes, H, "slopes");
    Number* to = numbers<Number>(y, B * T * H * D, "y");
    float* lse = numbers<float>(logsumexp, B * H * T, "logsumexp");
    py::gil_scoped_release without_gil;
    attention_forward(shape, from, slope, to, lse, num_threads);
}

template <class Number, class Element>
void backward(const Array<Element>& qkv, const Array<float>& slopes, const Array<float>& logsumexp,
              const Array<Element>& grad_y, Array<Element> grad_qkv, int num_threads) {
    const AttentionShape shape = shape_of(qkv);
    const auto [B, T, H, D] = shape;
    const Number* from = numbers<Number>(qkv, 3 * B * T * H * D, "qkv");
    const float* slope = numbers<float>(slopes, H, "slopes");
    const float* lse = numbers<float>(logsumexp, B * H * T, "logsumexp");
    const Number* grad = numbers<Number>(grad_y, B * T * H * D, "grad_y");
    Number* to = numbers<Number>(grad_qkv, 3 * B * T * H * D, "grad_qkv");
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

Decoder make_decoder(const Array<float>& embedding, const std::vector<BlockArrays>& blocks, const Array<float>& norm_f,
                     const Array<float>& slopes, int64_t rows, int64_t longest, int64_t context) {
    if (embedding.ndim() != 2) throw std::invalid_argument("the embedding is not a matrix");
    if (blocks.empty() || slopes.size() == 0) throw std::invalid_argument("there are no blocks, or no heads");
    if (weight(blocks[0], "ffn.up_proj").ndim() != 2) throw std::invalid_argument("ffn.up_proj is not a matrix");
    ModelShape shape;
    shape.V = embedding.shape(0);
    shape.C = embedding.shape(1);
    shape.blocks = static_cast<int64_t>(blocks.size());
    shape.H = slopes.size();
    shape.D = shape.C / shape.H;
    shape.hidden = weight(blocks[0], "ffn.up_proj").shape(0);
    constexpr int64_t kMaxContext = std::numeric_limits<int32_t>::max() / 2;  // distances are 32 bits
    if (shape.C % shape.H != 0) throw std::invalid_argument(std::to_string(shape.H) + " heads do not divide d_model");
    if (rows < 1 || longest < 1 || context < 0 || context > kMaxContext)
        throw std::invalid_argument("rows = " + std::to_string(rows) + ", longest = " + std::to_string(longest) +
                                    ", context = " + std::to_string(context) +
                                    ": expected at least 1, 1 and 0, and a context of at most " + std::to_string(kMaxContext));
    const int64_t C = shape.C, hidden = shape.hidden;
    const auto vector = [](const BlockArrays& block, const char* name, int64_t size) {
        const float* first = numbers<float>(weight(block, name), size, name);
        return std::vector<float>(first, first + size);
    };
    const auto matrix = [](const BlockArrays& block, const char* name, int64_t outputs, int64_t inputs) {
        return PackedMatrix(numbers<float>(weight(block, name), outputs * inputs, name), outputs, inputs);
    };
    std::vector<DecoderBlock> packed;
    for (const BlockArrays& block : blocks) {
        packed.push_back({vector(block, "norm_1", C), matrix(block, "attn.Wqkv", 3 * C, C),
                          matrix(block, "attn.out_proj", C, C), vector(block, "norm_2", C),
                          matrix(block, "ffn.up_proj", hidden, C), matrix(block, "ffn.down_proj", C, hidden)});
    }
    return Decoder(shape, embedding.data(), std::move(packed), numbers<float>(norm_f, C, "norm_f"), slopes.data(), rows,
                   longest, context);
}

void read(Decoder& decoder, const Array<int64_t>& ids, const Array<int64_t>& rows, const Array<int64_t>& lengths,
          Array<float> logits, int num_threads) {
    const int64_t n = rows.size();
    const int64_t* length = numbers<int64_t>(lengths, n, "lengths");
    int64_t total = 0;
    for (int64_t i = 0; i < n; ++i) total += length[i];
    const int64_t* id = numbers<int64_t>(ids, total, "ids");
    float* to = numbers<float>(logits, n * decoder.shape().V, "logits");
    py::gil_scoped_release without_gil;
    decoder.read(id, rows.data(), length, n, to, num_threads);
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
    py::class_<Decoder>(m, "Decoder")
        .def(py::init(&make_decoder), py::arg("embedding"), py::arg("blocks"), py::arg("norm_f"), py::arg("slopes"),
             py::arg("rows"), py::arg("longest"), py::arg("context"))
        .def("read", &read, py::arg("ids"), py::arg("rows"), py::arg("lengths"), py::arg("logits").noconvert(), threads);
}

}  // namespace alilama
