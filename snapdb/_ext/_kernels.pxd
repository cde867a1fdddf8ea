# cython: language_level=3
# The C kernels, see kernels.h. Linked into every module that cimports this.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t


cdef extern from "kernels.h" nogil:
    ctypedef struct SnapdbKernels:
        const char* level
        void (*unpack)(const void*, int, int, void*) noexcept nogil
        void (*pack)(const void*, int, int, void*) noexcept nogil
        void (*range[4])(const void*, uint64_t, uint64_t, uint8_t*) noexcept nogil
        void (*range_f32)(const void*, float, float, uint8_t*) noexcept nogil
        void (*range_f64)(const void*, double, double, uint8_t*) noexcept nogil
        void (*lut[3])(const void*, const uint8_t*, uint8_t*) noexcept nogil
        void (*expand)(const void*, uint8_t*) noexcept nogil
        void (*blend[4])(const void*, const uint8_t*, uint64_t, void*) noexcept nogil
        void (*minmax[2][4])(const void*, size_t, uint64_t*, uint64_t*) noexcept nogil
        void (*minmax_f32)(const void*, size_t, int64_t*, int64_t*, uint64_t*) noexcept nogil
        void (*minmax_f64)(const void*, size_t, int64_t*, int64_t*, uint64_t*) noexcept nogil
        void (*sum[2][4])(const void*, int64_t*, int64_t*) noexcept nogil
        double (*sum_f32)(const void*, int64_t, double) noexcept nogil
        double (*sum_f64)(const void*, int64_t, double) noexcept nogil
        double (*sum_f32_where)(const void*, const uint64_t*) noexcept nogil
        double (*sum_f64_where)(const void*, const uint64_t*) noexcept nogil
        void (*convert[4][4])(const void*, uint64_t, void*) noexcept nogil
        uint64_t (*sum_packed)(const void*, int, int) noexcept nogil
        void (*scale[4])(const void*, uint64_t, uint64_t, uint64_t*) noexcept nogil
        void (*line)(const uint64_t*, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t*) noexcept nogil
        void (*residual)(const uint64_t*, uint64_t, uint64_t, uint64_t, uint64_t*) noexcept nogil
        void (*decimals)(const uint64_t*, double, double, int, double*) noexcept nogil
        int (*decimal_codes)(const double*, double, int64_t*, uint8_t*) noexcept nogil
        int (*decimal_codes_f32)(const float*, double, int64_t*, uint8_t*) noexcept nogil
        uint64_t (*changes[4])(const void*, size_t) noexcept nogil
        int (*steady[4])(const void*, size_t, uint64_t) noexcept nogil
        int (*slots)(const uint32_t*, const uint8_t*, size_t, uint32_t, uint32_t*) noexcept nogil
        void (*and_words)(uint8_t*, const uint8_t*, size_t) noexcept nogil
        void (*or_words)(uint8_t*, const uint8_t*, size_t) noexcept nogil
        void (*andnot_words)(uint8_t*, const uint8_t*, size_t) noexcept nogil
        uint64_t (*popcount)(const void*, size_t) noexcept nogil

    ctypedef struct SnapdbEntry:
        const uint8_t* ptr
        size_t size
        uint64_t hash

    ctypedef struct SnapdbGroups:
        SnapdbEntry* entries
        uint32_t* first
        uint32_t groups, null_group
        const uint8_t* kinds
        size_t codes

    const SnapdbKernels* snapdb_kernels
    const char* snapdb_choose(const char*) noexcept

    size_t snapdb_ids(const uint8_t*, size_t, uint64_t, size_t, uint32_t*) noexcept
    void snapdb_copy_bits(const uint8_t*, size_t, size_t, uint8_t*) noexcept
    void snapdb_fill_bits(uint8_t*, size_t, size_t) noexcept
    void snapdb_fill_at(void*, int, const uint8_t*, size_t, uint64_t) noexcept
    void snapdb_lookup(const void*, int, const void*, int, void*) noexcept
    void snapdb_fill(void*, int, uint64_t) noexcept
    uint64_t snapdb_packed_at(const uint8_t*, int, int, size_t) noexcept
    void snapdb_widths(const void*, int, const uint64_t*, uint32_t*) noexcept
    void snapdb_patch(void*, int, const uint16_t*, const void*, size_t) noexcept
    void snapdb_runs(void*, int, const uint16_t*, const void*, size_t, size_t) noexcept
    void snapdb_tally(const void*, int, const uint64_t*, size_t, uint32_t, uint32_t*) noexcept
    void snapdb_tally_floats(const void*, int, const uint64_t*, size_t, uint32_t, const void*, int, double*) noexcept
    void snapdb_tally_ints(const void*, int, const uint64_t*, size_t, uint32_t, const void*, int, int, int64_t*, int64_t*) noexcept
    void snapdb_count_slots(const uint32_t*, size_t, uint32_t*) noexcept
    void snapdb_sum_slots(const uint32_t*, size_t, const void*, int, int, int64_t*, int64_t*) noexcept
    void snapdb_offset_slots(const uint32_t*, size_t, const void*, int, uint64_t*) noexcept
    void snapdb_fsum_slots(const uint32_t*, size_t, const void*, int, double*) noexcept
    void snapdb_bound_slots(const uint32_t*, size_t, const int64_t*, int64_t*, int64_t*) noexcept
    void snapdb_order_keys(const void*, int, int, int64_t*) noexcept
    void snapdb_order_floats(const void*, int, size_t, uint32_t*, uint32_t, uint8_t*, int64_t*) noexcept
    void snapdb_hash_keys(const void*, int, int, int, uint64_t*) noexcept
    int snapdb_groups_start(SnapdbGroups*, size_t, int, uint32_t) noexcept
    void snapdb_groups_free(SnapdbGroups*) noexcept
    int snapdb_group_direct(SnapdbGroups*, const uint32_t*, const uint64_t*, const uint64_t*, uint32_t, size_t, uint32_t*) noexcept
    int snapdb_group_keys(SnapdbGroups*, const uint64_t*, const uint64_t*, const uint64_t*, uint32_t, size_t, uint32_t*) noexcept
    int snapdb_group_strings(SnapdbGroups*, const uint8_t*, int, const uint8_t*, const uint64_t*, const uint64_t*, uint32_t, size_t, uint32_t*) noexcept
    int snapdb_group_add(SnapdbGroups*, const uint8_t*, size_t) noexcept
    int snapdb_has_key(const SnapdbGroups*, uint64_t) noexcept
    int snapdb_has_string(const SnapdbGroups*, const uint8_t*, size_t) noexcept
    void snapdb_match_keys(const SnapdbGroups*, const uint64_t*, uint8_t*) noexcept
    int snapdb_rank_keys(const uint64_t*, uint32_t, uint32_t*, uint32_t*) noexcept
    int snapdb_rank_strings(const SnapdbEntry*, uint32_t, uint32_t*, uint32_t*) noexcept
    int snapdb_compare(const void*, size_t, const void*, size_t) noexcept


cdef enum:
    BLOCK = 1024
    WORDS = 16  # 64-bit words in a block's bitmap
    NONE = 0xFFFFFFFF
