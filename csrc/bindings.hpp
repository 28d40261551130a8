// What both Python faces share: objects that are whole, and that one call uses at a time.
#pragma once

#include <pybind11/pybind11.h>

#include <stdexcept>

namespace pybind11::detail {

// An object that __init__ has made: what only __new__ has made has memory that nothing was written to.
template <class Object>
struct made_caster : type_caster_base<Object> {
    bool load(handle from, bool convert) {
        if (!type_caster_base<Object>::load(from, convert)) return false;
        return from.is_none() || reinterpret_cast<instance*>(from.ptr())->get_value_and_holder().holder_constructed();
    }
};

}  // namespace pybind11::detail

namespace alilama {

// Marks an object as used; its `is_used` is guarded by the GIL. Throws std::invalid_argument, saying its `kTaken`, where it is.
template <class Shared>
class Use {
public:
    explicit Use(Shared& shared) : shared_(shared) {
        if (shared.is_used) throw std::invalid_argument(Shared::kTaken);
        shared.is_used = true;
    }
    ~Use() { shared_.is_used = false; }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

private:
    Shared& shared_;
};

}  // namespace alilama
