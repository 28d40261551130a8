// The Python face of the C++ core: converts arguments, releases the GIL, keeps a cache of pieces per running thread.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "../bindings.hpp"
#include "counter.hpp"
#include "documents.hpp"
#include "encoder.hpp"
#include "trainer.hpp"

namespace py = pybind11;

namespace alilama {
namespace {

// What Python made, of type T; throws its error where it made nothing. pybind11's own types make a RuntimeError of each.
template <class T>
T checked(PyObject* made) {
    if (!made) throw py::error_already_set();
    return py::reinterpret_steal<T>(made);
}

// A counter, which one call uses at a time: `is_used` is guarded by the GIL, which some calls release.
struct SharedCounter {
    static constexpr const char* kTaken = "another call uses this PieceCounter: give each thread its own";
    PieceCounter counter;
    bool is_used = false;
};

// An encoder whose ids have 16 or 32 bits, whatever they need, with the caches of pieces that its calls lend each other,
// one for each call that runs at a time, and with an int for every id. The GIL guards both; a mutex would be held forever
// in a forked child.
class SharedEncoder {
public:
    explicit SharedEncoder(const Vocabulary& vocabulary) : encoder(vocabulary) {}

    const Encoder encoder;

    // Calls work(Id()) with the smallest type that holds every id.
    template <class Work>
    auto with_id_type(Work&& work) {
        return encoder.num_ids() <= 65536 ? work(uint16_t()) : work(uint32_t());
    }

    // Returns work(cache), run without the GIL, with a cache that no other call uses meanwhile. Needs the GIL.
    template <class Id, class Work>
    Id* with_cache(Work&& work) {
        auto& idle = std::get<Caches<Id>>(idle_caches_);
        std::unique_ptr<PieceCache<Id>> cache;
        if (idle.empty()) {
            cache = std::make_unique<PieceCache<Id>>(encoder.make_cache<Id>());
        } else {
            cache = std::move(idle.back());
            idle.pop_back();
        }
        Id* end = nullptr;
        {
            const py::gil_scoped_release unlocked;
            end = work(*cache);
        }
        idle.push_back(std::move(cache));
        return end;
    }

    // Encodes `text`; see Encoder::encode.
    template <class Id>
    Id* encode(const Pattern& pattern, std::string_view text, Id* out) {
        return with_cache<Id>([&](PieceCache<Id>& cache) { return encoder.encode(pattern, text, cache, out); });
    }

    // A list of ids: the ints are made once, for making one takes longer than encoding it.
    template <class Id>
    py::list to_list(const Id* ids, size_t size) {
        if (ints_.empty()) {
            std::vector<py::object> ints;
            for (size_t id = 0; id < encoder.num_ids(); ++id) ints.push_back(py::int_(id));
            ints_ = std::move(ints);
        }
        py::list list = checked<py::list>(PyList_New(static_cast<Py_ssize_t>(size)));
        for (size_t i = 0; i < size; ++i)
            PyList_SET_ITEM(list.ptr(), static_cast<Py_ssize_t>(i), ints_[ids[i]].inc_ref().ptr());
        return list;
    }

private:
    template <class Id>
    using Caches = std::vector<std::unique_ptr<PieceCache<Id>>>;

    std::tuple<Caches<uint16_t>, Caches<uint32_t>> idle_caches_;
    std::vector<py::object> ints_;
};

}  // namespace
}  // namespace alilama

namespace pybind11::detail {

template <>
struct type_caster<alilama::SharedCounter> : made_caster<alilama::SharedCounter> {};

template <>
struct type_caster<alilama::SharedEncoder> : made_caster<alilama::SharedEncoder> {};

}  // namespace pybind11::detail

namespace alilama {
namespace {

// The bytes of a Python bytes or str, which keeps its UTF-8 for the next time.
std::string_view view(const py::object& text) {
    if (py::isinstance<py::bytes>(text)) return static_cast<std::string_view>(py::reinterpret_borrow<py::bytes>(text));
    Py_ssize_t size = 0;
    const char* bytes = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (!bytes) throw py::error_already_set();  // no str, or one with surrogates
    return {bytes, static_cast<size_t>(size)};
}

py::bytes to_bytes(std::string_view text) {
    return checked<py::bytes>(PyBytes_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size())));
}

py::list to_bytes_list(const std::vector<std::string_view>& parts) {
    py::list list;
    for (const std::string_view part : parts) list.append(to_bytes(part));
    return list;
}

// Bound for the tests alone, which compare the pieces with those of the regex package.
py::list split_pieces(const std::string& pattern_name, const py::bytes& text) {
    const std::string_view bytes = view(text);
    const auto* begin = reinterpret_cast<const uint8_t*>(bytes.data());
    std::vector<std::string_view> pieces;
    size_t at = 0;
    for_each_piece(find_pattern(pattern_name), begin, begin + bytes.size(), [&](const uint8_t*, size_t size) {
        pieces.push_back(bytes.substr(at, size));
        at += size;
    });
    return to_bytes_list(pieces);
}

// Counts the pieces of a text, or of each document in it, cut at special tokens.
void add_text(SharedCounter& shared, const std::string& pattern_name, const py::bytes& text,
              const std::vector<std::string>& special_tokens, bool has_documents) {
    const Pattern& pattern = find_pattern(pattern_name);
    const std::string_view bytes = view(text);
    const Use use(shared);
    const py::gil_scoped_release unlocked;
    for (const std::string_view document : has_documents ? split_documents(bytes) : std::vector{bytes})
        for (const std::string_view stretch : split_at_tokens(document, special_tokens))
            shared.counter.add_text(pattern, stretch);
}

void add_pieces(SharedCounter& shared, const std::vector<py::bytes>& pieces) {
    const Use use(shared);
    for (const py::bytes& piece : pieces) shared.counter.add_piece(view(piece));
}

void merge(SharedCounter& shared, SharedCounter& other) {
    if (&shared == &other) throw std::invalid_argument("a PieceCounter cannot be merged with itself");
    const Use use(shared), use_other(other);
    const py::gil_scoped_release unlocked;
    shared.counter.merge(other.counter);
}

size_t drop_rarest(SharedCounter& shared, size_t limit) {
    const Use use(shared);
    const py::gil_scoped_release unlocked;
    return shared.counter.drop_rarest(limit);
}

size_t num_bytes(SharedCounter& shared) {
    const Use use(shared);
    return shared.counter.num_bytes();
}

std::vector<Pair> learn(SharedCounter& shared, size_t num_merges) {
    const Use use(shared);
    const py::gil_scoped_release unlocked;
    return learn_merges(shared.counter, num_merges, [] {
        const py::gil_scoped_acquire locked;
        if (PyErr_CheckSignals() != 0) throw py::error_already_set();  // Ctrl-C
    });
}

std::unique_ptr<SharedEncoder> make_encoder(const std::vector<py::bytes>& tokens, const std::array<TokenId, 256>& byte_ids,
                                            const std::vector<std::array<TokenId, 3>>& merges,
                                            const std::vector<TokenId>& whole_pieces) {
    Vocabulary vocabulary;
    for (const py::bytes& token : tokens) vocabulary.tokens.emplace_back(view(token));
    vocabulary.byte_ids = byte_ids;
    for (const auto& [left, right, result] : merges) vocabulary.merges.push_back({left, right, result});
    vocabulary.whole_pieces = whole_pieces;
    return std::make_unique<SharedEncoder>(vocabulary);
}

py::object encode_to_list(SharedEncoder& shared, const std::string& pattern_name, const py::object& text) {
    const Pattern& pattern = find_pattern(pattern_name);
    const std::string_view bytes = view(text);
    return shared.with_id_type([&](auto id) -> py::object {
        using Id = decltype(id);
        const std::unique_ptr<Id[]> ids(new Id[bytes.size() + Encoder::kSlack]);
        const Id* const end = shared.encode(pattern, bytes, ids.get());
        return shared.to_list(ids.get(), static_cast<size_t>(end - ids.get()));
    });
}

// An array of the ids that `write(begin)` writes; it returns their end. There are at most `size`.
template <class Id, class Write>
py::array ids_array(size_t size, Write&& write) {
    py::array_t<Id> ids(static_cast<py::ssize_t>(size + Encoder::kSlack));
    Id* const begin = ids.mutable_data();
    const Id* const end = write(begin);
    ids.resize({end - begin});
    return std::move(ids);
}

py::array_t<int64_t> to_array(const std::vector<int64_t>& values) {
    return py::array_t<int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::array encode_to_numpy(SharedEncoder& shared, const std::string& pattern_name, const py::object& text) {
    const Pattern& pattern = find_pattern(pattern_name);
    const std::string_view bytes = view(text);
    return shared.with_id_type([&](auto id) {
        return ids_array<decltype(id)>(bytes.size(), [&](auto* out) { return shared.encode(pattern, bytes, out); });
    });
}

py::array encode_pieces(SharedEncoder& shared, const std::vector<py::bytes>& pieces) {
    std::vector<std::string_view> views;
    size_t size = 0;
    for (const py::bytes& piece : pieces) {
        views.push_back(view(piece));
        size += views.back().size();
    }
    return shared.with_id_type([&](auto id) {
        return ids_array<decltype(id)>(size, [&](auto* out) {
            const py::gil_scoped_release unlocked;
            for (const std::string_view piece : views) out = shared.encoder.encode_piece(piece, out);
            return out;
        });
    });
}

void check_id(const SharedEncoder& shared, TokenId id) {
    if (id >= shared.encoder.num_ids()) throw std::invalid_argument("id " + std::to_string(id) + " is not a token");
}

// Encodes the documents of `text`, <|endoftext|> before each one that begins here: all but the first part, and that one
// too unless `continues`. Empty documents are left out. Returns (ids, tokens of each part, bytes of each part).
py::tuple encode_documents(SharedEncoder& shared, const std::string& pattern_name, const py::bytes& text, TokenId eot_id,
                           bool continues) {
    const Pattern& pattern = find_pattern(pattern_name);
    const std::string_view bytes = view(text);
    check_id(shared, eot_id);
    std::vector<int64_t> part_tokens, part_bytes;
    const auto encode_all = [&](auto* out) {
        using Id = std::decay_t<decltype(*out)>;
        return shared.with_cache<Id>([&](PieceCache<Id>& cache) {
            bool is_new = !continues;
            for (const std::string_view document : split_documents(bytes)) {
                if (is_new && document.empty()) continue;
                Id* const part_begin = out;
                if (is_new) *out++ = static_cast<Id>(eot_id);
                out = shared.encoder.encode(pattern, document, cache, out);
                part_tokens.push_back(out - part_begin);
                part_bytes.push_back(static_cast<int64_t>(document.size()));
                is_new = true;
            }
            return out;
        });
    };
    py::array ids = shared.with_id_type([&](auto id) { return ids_array<decltype(id)>(bytes.size() + 1, encode_all); });
    return py::make_tuple(ids, to_array(part_tokens), to_array(part_bytes));
}

// Encodes `text` in stretches of `sizes` bytes, each after the id of `before` that stands there. Returns (ids, tokens of each
// stretch, with that id).
py::tuple encode_framed(SharedEncoder& shared, const std::string& pattern_name, const py::bytes& text,
                        const std::vector<TokenId>& before, const std::vector<size_t>& sizes) {
    const Pattern& pattern = find_pattern(pattern_name);
    const std::string_view bytes = view(text);
    size_t end = 0;
    for (const size_t size : sizes) {
        if (size > bytes.size() - end) throw std::invalid_argument("the stretches are longer than the text");
        end += size;
    }
    if (end != bytes.size() || before.size() != sizes.size())
        throw std::invalid_argument("expected an id before each stretch, and stretches that are the text");
    for (const TokenId id : before) check_id(shared, id);
    std::vector<int64_t> stretch_tokens;
    const auto encode_all = [&](auto* out) {
        using Id = std::decay_t<decltype(*out)>;
        return shared.with_cache<Id>([&](PieceCache<Id>& cache) {
            size_t at = 0;
            for (size_t i = 0; i < sizes.size(); ++i) {
                Id* const stretch_begin = out;
                *out++ = static_cast<Id>(before[i]);
                out = shared.encoder.encode(pattern, bytes.substr(at, sizes[i]), cache, out);
                stretch_tokens.push_back(out - stretch_begin);
                at += sizes[i];
            }
            return out;
        });
    };
    py::array ids =
        shared.with_id_type([&](auto id) { return ids_array<decltype(id)>(bytes.size() + before.size(), encode_all); });
    return py::make_tuple(ids, to_array(stretch_tokens));
}

// Whether ids are an array of that type that can be read where it is.
template <class Id>
bool is_array_of(const py::object& ids) {
    if (!py::isinstance<py::array_t<Id, py::array::c_style>>(ids)) return false;
    const auto array = py::reinterpret_borrow<py::array>(ids);
    return array.ndim() == 1 && (array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_);
}

template <class Id>
std::string decode_array(const Encoder& encoder, const py::object& ids) {
    const auto array = py::reinterpret_borrow<py::array_t<Id, py::array::c_style>>(ids);
    return encoder.decode(array.data(), static_cast<size_t>(array.size()));
}

// Ids are an array, read where it is, or any sequence of ints.
std::string decode(const SharedEncoder& shared, const py::object& ids) {
    if (is_array_of<uint16_t>(ids)) return decode_array<uint16_t>(shared.encoder, ids);
    if (is_array_of<uint32_t>(ids)) return decode_array<uint32_t>(shared.encoder, ids);
    if (is_array_of<int64_t>(ids)) return decode_array<int64_t>(shared.encoder, ids);
    const auto items = checked<py::tuple>(PySequence_Tuple(ids.ptr()));  // which nobody changes meanwhile
    std::vector<int64_t> values(items.size());
    for (size_t i = 0; i < values.size(); ++i) {
        PyObject* const item = PyTuple_GET_ITEM(items.ptr(), static_cast<Py_ssize_t>(i));
        values[i] = PyLong_AsLongLong(item);
        if (values[i] != -1 || !PyErr_Occurred()) continue;
        if (!PyErr_ExceptionMatches(PyExc_TypeError) && !PyErr_ExceptionMatches(PyExc_OverflowError))
            throw py::error_already_set();
        PyErr_Clear();
        const auto written = checked<py::str>(PyUnicode_Substring(py::repr(item).ptr(), 0, 40));
        throw std::out_of_range("id " + std::string(written) + " at position " + std::to_string(i) +
                                " is not a token: ids go from 0 to " + std::to_string(shared.encoder.num_ids() - 1));
    }
    return shared.encoder.decode(values.data(), values.size());
}

py::bytes decode_to_bytes(const SharedEncoder& shared, const py::object& ids) { return to_bytes(decode(shared, ids)); }

py::str decode_to_str(const SharedEncoder& shared, const py::object& ids, const std::string& errors) {
    const std::string text = decode(shared, ids);
    return checked<py::str>(PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), errors.c_str()));
}

}  // namespace

PYBIND11_MODULE(_bpe, m) {
    m.doc() = "Byte-level BPE: cutting, counting, learning and applying merges. Texts are bytes.";

    py::dict patterns;  // the native ones: expressions by name
    for (const Pattern& pattern : kPatterns) patterns[py::str(pattern.name)] = py::str(pattern.expression);
    m.attr("PATTERNS") = patterns;

    m.def("split_documents", [](const py::bytes& text) { return to_bytes_list(split_documents(view(text))); });
    m.def("split_at_tokens", [](const py::bytes& text, const std::vector<std::string>& tokens) {
        return to_bytes_list(split_at_tokens(view(text), tokens));
    });
    m.def(
        "find_cut",
        [](const py::bytes& text, const std::string& pattern) { return find_pattern(pattern).find_cut(view(text)); },
        py::arg("text"), py::arg("pattern"));
    m.def("cuts_documents", [](const std::string& pattern) { return find_pattern(pattern).find_cut != &find_document_cut; });
    m.def("find_document_cut", [](const py::bytes& text) { return find_document_cut(view(text)); });
    m.def("split_pieces", &split_pieces, py::arg("pattern"), py::arg("text"));

    py::class_<SharedCounter>(m, "PieceCounter")
        .def(py::init<>())
        .def("add_text", &add_text, py::arg("pattern"), py::arg("text"), py::arg("special_tokens"), py::arg("has_documents"))
        .def("add_pieces", &add_pieces, py::arg("pieces"))
        .def("merge", &merge, py::arg("other"))
        .def("drop_rarest", &drop_rarest, py::arg("limit"))
        .def("learn_merges", &learn, py::arg("num_merges"))
        .def_property_readonly("num_bytes", &num_bytes);

    py::class_<SharedEncoder>(m, "Encoder")
        .def(py::init(&make_encoder), py::arg("tokens"), py::arg("byte_ids"), py::arg("merges"), py::arg("whole_pieces"))
        .def("encode", &encode_to_list, py::arg("pattern"), py::arg("text"))
        .def("encode_to_numpy", &encode_to_numpy, py::arg("pattern"), py::arg("text"))
        .def("encode_pieces", &encode_pieces, py::arg("pieces"))
        .def("encode_documents", &encode_documents, py::arg("pattern"), py::arg("text"), py::arg("eot_id"),
             py::arg("continues"))
        .def("encode_framed", &encode_framed, py::arg("pattern"), py::arg("text"), py::arg("before"), py::arg("sizes"))
        .def("decode_to_bytes", &decode_to_bytes, py::arg("ids"))
        .def("decode_to_str", &decode_to_str, py::arg("ids"), py::arg("errors"));
}

}  // namespace alilama
