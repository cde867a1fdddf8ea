/* The SIMD levels, the choice among them, and the scalar loops. See kernels.h.
 *
 * The module around them is compiled with -O2. clang vectorises with it all the same; for gcc this comes first, as it holds
 * for what follows.
 */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

#include "kernels.h"

#include <Python.h> /* only for the raw allocator, which needs no GIL and which tracemalloc sees */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define ONCE
#else
#if defined(__GNUC__) && !defined(__clang__)
#define ONCE _Pragma("GCC unroll 1")
#else
#define ONCE
#endif
#endif

#if defined(__GNUC__)
#define PREFETCH(at) __builtin_prefetch(at)
#elif defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#define PREFETCH(at) _mm_prefetch((const char *)(at), _MM_HINT_T0)
#else
#define PREFETCH(at) ((void)(at))
#endif

/* 1.5 * 2**52: added to a float below 2**51 it leaves the nearest integer, half to even, in the low bits */
#define SHIFTED 6755399441055744.0
#define SHIFTED_BITS 0x4338000000000000u

#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define TEXT_(a) #a
#define TEXT(a) TEXT_(a)

static inline int log2_of(int T) { return T == 8 ? 3 : T == 16 ? 4 : T == 32 ? 5 : 6; }

static inline uint64_t ones(int width) { return width >= 64 ? ~(uint64_t)0 : ((uint64_t)1 << width) - 1; }

static inline uint64_t replicate(uint64_t m, int T) {
    switch (T) {
        case 8: return m * 0x0101010101010101u;
        case 16: return m * 0x0001000100010001u;
        case 32: return m * 0x0000000100000001u;
        default: return m;
    }
}

static inline uint64_t bit_count(uint64_t x) {
    x -= (x >> 1) & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (x * 0x0101010101010101u) >> 56;
}

static inline int lowest_bit(uint64_t x) { /* x is not 0 */
#if defined(__GNUC__)
    return __builtin_ctzll(x);
#elif defined(_MSC_VER) && defined(_WIN64)
    unsigned long at;
    _BitScanForward64(&at, x);
    return (int)at;
#else
    return (int)bit_count((x & (0 - x)) - 1);
#endif
}

/* whether all rows of a block are selected */
static inline int all_set(const uint64_t *selected) {
    uint64_t all = ~(uint64_t)0;
    for (int w = 0; selected && w < SNAPDB_BLOCK / 64; w++) all &= selected[w];
    return all == ~(uint64_t)0;
}

static inline int bit_length(uint64_t x) {
#if defined(__GNUC__)
    return x ? 64 - __builtin_clzll(x) : 0;
#else
    int bits = 0;
    for (int half = 32; half; half >>= 1)
        if (x >> half) {
            bits += half;
            x >>= half;
        }
    return bits + (int)x;
#endif
}

static inline double double_of(uint64_t bits) {
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static inline float float_of(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint64_t bits_of_f64(double value) {
    uint64_t bits;
    memcpy(&bits, &value, 8);
    return bits;
}

static inline uint32_t bits_of_f32(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline uint64_t load64(const uint8_t *at) {
    uint64_t x;
    memcpy(&x, at, 8);
    return x;
}

#ifndef SNAPDB_BITMAPS_ONLY
/* the bit of each row of a word, as vectors have no numbers of their lanes */
#define BITS_8(U, at) (U)1 << (at), (U)2 << (at), (U)4 << (at), (U)8 << (at), (U)16 << (at), (U)32 << (at), (U)64 << (at), (U)128 << (at)
static const uint32_t BIT_uint32_t[32] = {BITS_8(uint32_t, 0), BITS_8(uint32_t, 8), BITS_8(uint32_t, 16), BITS_8(uint32_t, 24)};
static const uint64_t BIT_uint64_t[64] = {
    BITS_8(uint64_t, 0),  BITS_8(uint64_t, 8),  BITS_8(uint64_t, 16), BITS_8(uint64_t, 24),
    BITS_8(uint64_t, 32), BITS_8(uint64_t, 40), BITS_8(uint64_t, 48), BITS_8(uint64_t, 56),
};
#undef BITS_8
#endif

/* -- levels ---------------------------------------------------------------------------------------------------------- */

#define LEVEL base
#define WIDE 0
#define POPCOUNT bit_count
#include "kernels.inc"
#undef LEVEL
#undef WIDE
#undef POPCOUNT

#if defined(__x86_64__) && defined(__GNUC__)
#define SNAPDB_X86 1
#define WIDE 1
#define POPCOUNT (uint64_t)__builtin_popcountll

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2,popcnt")
#endif
#define LEVEL v3
#include "kernels.inc"
#undef LEVEL
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,bmi,bmi2,popcnt")
#endif
#define LEVEL v4
#include "kernels.inc"
#undef LEVEL
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef POPCOUNT
#undef WIDE

#include <cpuid.h>

/* 0: base, 3: AVX2, 4: AVX-512 F, BW, DQ and VL; what both the CPU and the system (XCR0) support */
static int cpu_level(void) {
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 0;
    if (!(c & (1u << 27)) || !(c & (1u << 28)) || !(c & (1u << 23))) return 0; /* OSXSAVE, AVX, POPCNT */
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 0x6) != 0x6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 0;
    if ((b & (1u << 3)) == 0 || (b & (1u << 5)) == 0 || (b & (1u << 8)) == 0) return 0; /* BMI1, AVX2, BMI2 */
    const unsigned wide = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);            /* F, DQ, BW, VL */
    return (low & 0xe0) == 0xe0 && (b & wide) == wide ? 4 : 3;
}
#endif

const SnapdbKernels *snapdb_kernels = NULL;

const char *snapdb_choose(const char *name) {
    int want = strcmp(name, "base") == 0 ? 0 : strcmp(name, "v3") == 0 ? 3 : strcmp(name, "v4") == 0 ? 4 : *name == 0 ? -1 : -2;
    int have = 0;
#ifdef SNAPDB_X86
    have = cpu_level();
#endif
    if (want == -2) return "use base, v3 or v4";
    if (want > have) return "this CPU, system or build does not support it";
    if (want < 0) want = have;
    snapdb_kernels = &kernels_base;
#ifdef SNAPDB_X86
    if (want == 3) snapdb_kernels = &kernels_v3;
    if (want == 4) snapdb_kernels = &kernels_v4;
#endif
    return NULL;
}

/* -- bitmaps ----------------------------------------------------------------------------------------------------------- */

size_t snapdb_ids(const uint8_t *bits, size_t words, uint64_t skip, size_t limit, uint32_t *out) {
    size_t found = 0;
    for (size_t w = 0; w < words && found < limit; w++) {
        uint64_t x = load64(bits + 8 * w);
        if (skip) {
            const uint64_t here = bit_count(x);
            if (skip >= here) {
                skip -= here;
                continue;
            }
            for (; skip; skip--) x &= x - 1;
        }
        const uint32_t row = (uint32_t)(w * 64);
        if (limit - found >= 64) {
            while (x) {
                out[found++] = row + (uint32_t)lowest_bit(x);
                x &= x - 1;
            }
        } else {
            while (x && found < limit) {
                out[found++] = row + (uint32_t)lowest_bit(x);
                x &= x - 1;
            }
        }
    }
    return found;
}

void snapdb_copy_bits(const uint8_t *source, size_t start, size_t rows, uint8_t *target) {
    const uint8_t *from = source + (start >> 3);
    const int shift = (int)(start & 7);
    const size_t bytes = (rows + 7) / 8, last = (start + rows + 7) / 8 - (start >> 3);
    memset(target, 0, (rows + 63) / 64 * 8);
    for (size_t i = 0; i < bytes; i++) {
        unsigned x = from[i] >> shift;
        if (shift && i + 1 < last) x |= (unsigned)from[i + 1] << (8 - shift);
        target[i] = (uint8_t)x;
    }
    if (rows & 7) target[bytes - 1] &= (uint8_t)((1u << (rows & 7)) - 1);
}

void snapdb_fill_bits(uint8_t *bits, size_t start, size_t stop) {
    if (start >= stop) return;
    const size_t first = start >> 3, last = (stop - 1) >> 3;
    const uint8_t head = (uint8_t)(0xffu << (start & 7)), tail = (uint8_t)(0xffu >> (7 - ((stop - 1) & 7)));
    if (first == last) {
        bits[first] |= head & tail;
        return;
    }
    bits[first] |= head;
    memset(bits + first + 1, 0xff, last - first - 1);
    bits[last] |= tail;
}

void snapdb_fill_at(void *values, int item, const uint8_t *bits, size_t rows, uint64_t value) {
    for (size_t w = 0; w * 64 < rows; w++) {
        uint64_t x = load64(bits + 8 * w);
        for (; x; x &= x - 1) {
            const size_t row = w * 64 + (size_t)lowest_bit(x);
            memcpy((uint8_t *)values + row * (size_t)item, &value, (size_t)item);
        }
    }
}

/* -- blocks ------------------------------------------------------------------------------------------------------------ */

#define LOOKUP(C, V)                                                             \
    {                                                                            \
        const C *c = (const C *)codes;                                           \
        const V *t = (const V *)table;                                           \
        V *o = (V *)out;                                                         \
        for (int i = 0; i < SNAPDB_BLOCK; i++) o[i] = t[c[i]];                   \
        return;                                                                  \
    }
#define LOOKUPS(C)                            \
    switch (item) {                           \
        case 1: LOOKUP(C, uint8_t)            \
        case 2: LOOKUP(C, uint16_t)           \
        case 4: LOOKUP(C, uint32_t)           \
        default: LOOKUP(C, uint64_t)          \
    }

void snapdb_lookup(const void *codes, int T, const void *table, int item, void *out) {
    if (T == 8) LOOKUPS(uint8_t)
    if (T == 16) LOOKUPS(uint16_t)
    LOOKUPS(uint32_t)
}

void snapdb_fill(void *out, int item, uint64_t value) {
    switch (item) {
        case 1: memset(out, (int)(value & 0xff), SNAPDB_BLOCK); break;
        case 2: for (int i = 0; i < SNAPDB_BLOCK; i++) ((uint16_t *)out)[i] = (uint16_t)value; break;
        case 4: for (int i = 0; i < SNAPDB_BLOCK; i++) ((uint32_t *)out)[i] = (uint32_t)value; break;
        default: for (int i = 0; i < SNAPDB_BLOCK; i++) ((uint64_t *)out)[i] = value;
    }
}

static inline uint64_t container_at(const uint8_t *at, int T, size_t index) {
    switch (T) {
        case 8: return at[index];
        case 16: return ((const uint16_t *)at)[index];
        case 32: return ((const uint32_t *)at)[index];
        default: return ((const uint64_t *)at)[index];
    }
}

uint64_t snapdb_packed_at(const uint8_t *packed, int W, int T, size_t row) {
    const uint8_t *block = packed + (row >> 10) * (size_t)W * 128;
    const size_t i = row & 1023, lanes = 1024u / (size_t)T, lane = i & (lanes - 1);
    const int bit = (int)(i / lanes) * W, s = bit & (T - 1);
    const size_t word = (size_t)(bit >> log2_of(T)) * lanes + lane;
    uint64_t x = container_at(block, T, word) >> s;
    if (s + W > T) x |= container_at(block, T, word + lanes) << (T - s);
    return x & ones(W);
}

void snapdb_widths(const void *codes, int T, const uint64_t *valid, uint32_t *histogram65) {
    for (size_t i = 0; i < SNAPDB_BLOCK; i++) {
        if (valid && !((valid[i >> 6] >> (i & 63)) & 1)) continue;
        histogram65[bit_length(container_at((const uint8_t *)codes, T, i))]++;
    }
}

#define PATCH(U) \
    for (size_t i = 0; i < n; i++) ((U *)codes)[rows[i] & (SNAPDB_BLOCK - 1)] = ((const U *)exceptions)[i];

void snapdb_patch(void *codes, int T, const uint16_t *rows, const void *exceptions, size_t n) {
    switch (T) {
        case 8: PATCH(uint8_t) break;
        case 16: PATCH(uint16_t) break;
        case 32: PATCH(uint32_t) break;
        default: PATCH(uint64_t)
    }
}

#define RUNS(U)                                                                              \
    for (size_t at = 0; at < SNAPDB_BLOCK; run++) {                                          \
        const U code = ((const U *)run_codes)[run];                                          \
        size_t stop = (size_t)last[run] + 1 - row;                                           \
        if (stop > SNAPDB_BLOCK) stop = SNAPDB_BLOCK;                                        \
        for (; at < stop; at++) ((U *)codes)[at] = code;                                     \
    }

void snapdb_runs(void *codes, int T, const uint16_t *last, const void *run_codes, size_t run, size_t row) {
    switch (T) {
        case 8: RUNS(uint8_t) break;
        case 16: RUNS(uint16_t) break;
        case 32: RUNS(uint32_t) break;
        default: RUNS(uint64_t)
    }
}

/* `add` with `slot` for each row; whole blocks of live rows need no look at the bits */
#define TALLY(C, add)                                                                        \
    if (all_live) {                                                                          \
        for (size_t i = 0; i < n; i++) {                                                     \
            const size_t slot = (size_t)((const C *)codes)[i] * 4 + (i & 3);                 \
            add;                                                                             \
        }                                                                                    \
    } else {                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                     \
            const uint32_t is = (uint32_t)(live[i >> 6] >> (i & 63)) & 1;                    \
            const size_t slot = (size_t)(is ? ((const C *)codes)[i] : none) * 4 + (i & 3);   \
            add;                                                                             \
        }                                                                                    \
    }
#define TALLIES(add)                                  \
    const int all_live = !live || (n == SNAPDB_BLOCK && all_set(live)); \
    if (T == 8) {                                     \
        TALLY(uint8_t, add)                           \
    } else if (T == 16) {                             \
        TALLY(uint16_t, add)                          \
    } else {                                          \
        TALLY(uint32_t, add)                          \
    }

void snapdb_tally(const void *codes, int T, const uint64_t *live, size_t n, uint32_t none, uint32_t *counts4) {
    TALLIES(counts4[slot]++)
}

void snapdb_tally_floats(const void *codes, int T, const uint64_t *live, size_t n, uint32_t none, const void *values, int item,
                         double *sums4) {
    if (item == 4) {
        TALLIES(sums4[slot] += ((const float *)values)[i])
    } else {
        TALLIES(sums4[slot] += ((const double *)values)[i])
    }
}

#define ADD(V)                                        \
    {                                                 \
        TALLIES(lo4[slot] += ((const V *)values)[i])  \
        break;                                        \
    }
#define ADD_HALVES(V)                                                                         \
    {                                                                                         \
        TALLIES(lo4[slot] += (int64_t)((uint64_t)((const V *)values)[i] & 0xffffffffu);       \
                hi4[slot] += (int64_t)(((const V *)values)[i] >> 32))                         \
        break;                                                                                \
    }

void snapdb_tally_ints(const void *codes, int T, const uint64_t *live, size_t n, uint32_t none, const void *values, int width,
                       int is_signed, int64_t *lo4, int64_t *hi4) {
    switch (width * 2 + (is_signed != 0)) {
        case 16: ADD(uint8_t)
        case 17: ADD(int8_t)
        case 32: ADD(uint16_t)
        case 33: ADD(int16_t)
        case 64: ADD(uint32_t)
        case 65: ADD(int32_t)
        case 128: ADD_HALVES(uint64_t)
        default: ADD_HALVES(int64_t)
    }
}

void snapdb_count_slots(const uint32_t *slots, size_t n, uint32_t *counts) {
    for (size_t i = 0; i < n; i++) counts[(size_t)slots[i] * 4 + (i & 3)]++;
}

#define SUM(V) \
    for (size_t i = 0; i < n; i++) lo[(size_t)slots[i] * 4 + (i & 3)] += ((const V *)values)[i];
#define SUM_HALVES(V)                                                            \
    for (size_t i = 0; i < n; i++) {                                             \
        const V x = ((const V *)values)[i];                                      \
        const size_t at = (size_t)slots[i] * 4 + (i & 3);                        \
        lo[at] += (int64_t)((uint64_t)x & 0xffffffffu);                          \
        hi[at] += (int64_t)(x >> 32);                                            \
    }

void snapdb_sum_slots(const uint32_t *slots, size_t n, const void *values, int width, int is_signed, int64_t *lo, int64_t *hi) {
    switch (width * 2 + (is_signed != 0)) {
        case 16: SUM(uint8_t) break;
        case 17: SUM(int8_t) break;
        case 32: SUM(uint16_t) break;
        case 33: SUM(int16_t) break;
        case 64: SUM(uint32_t) break;
        case 65: SUM(int32_t) break;
        case 128: SUM_HALVES(uint64_t) break;
        default: SUM_HALVES(int64_t)
    }
}

#define SUM_OFFSETS(V) \
    for (size_t i = 0; i < n; i++) both[(size_t)slots[i] * 4 + (i & 3)] += ((const V *)values)[i] + ((uint64_t)1 << 48);

void snapdb_offset_slots(const uint32_t *slots, size_t n, const void *values, int width, uint64_t *both) {
    if (width == 8) SUM_OFFSETS(uint8_t)
    else if (width == 16) SUM_OFFSETS(uint16_t)
    else SUM_OFFSETS(uint32_t)
}

void snapdb_fsum_slots(const uint32_t *slots, size_t n, const void *values, int item, double *sums) {
    if (item == 4)
        for (size_t i = 0; i < n; i++) sums[(size_t)slots[i] * 4 + (i & 3)] += ((const float *)values)[i];
    else
        for (size_t i = 0; i < n; i++) sums[(size_t)slots[i] * 4 + (i & 3)] += ((const double *)values)[i];
}

void snapdb_bound_slots(const uint32_t *slots, size_t n, const int64_t *keys, int64_t *lo, int64_t *hi) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t s = slots[i];
        const int64_t k = keys[i];
        if (k < lo[s]) lo[s] = k;
        if (k > hi[s]) hi[s] = k;
    }
}

#define KEYS(V, expression)                              \
    {                                                    \
        const V *v = (const V *)values;                  \
        for (int i = 0; i < SNAPDB_BLOCK; i++) {         \
            const V x = v[i];                            \
            keys[i] = expression;                        \
        }                                                \
        break;                                           \
    }

void snapdb_order_keys(const void *values, int width, int is_signed, int64_t *keys) {
    switch (width * 2 + (is_signed != 0)) {
        case 16: KEYS(uint8_t, x)
        case 17: KEYS(int8_t, x)
        case 32: KEYS(uint16_t, x)
        case 33: KEYS(int16_t, x)
        case 64: KEYS(uint32_t, x)
        case 65: KEYS(int32_t, x)
        case 128: KEYS(uint64_t, (int64_t)(x ^ 0x8000000000000000u))
        default: KEYS(int64_t, x)
    }
}

void snapdb_order_floats(const void *values, int item, size_t n, uint32_t *slots, uint32_t none, uint8_t *nans, int64_t *keys) {
    for (size_t i = 0; i < n; i++) {
        int64_t b, magnitude, infinity;
        if (item == 4) {
            b = ((const int32_t *)values)[i];
            magnitude = INT32_MAX;
            infinity = 0x7f800000;
        } else {
            b = ((const int64_t *)values)[i];
            magnitude = INT64_MAX;
            infinity = 0x7ff0000000000000;
        }
        if ((b & magnitude) > infinity) {
            nans[slots[i]] = 1;
            slots[i] = none;
        }
        keys[i] = b < 0 ? b ^ magnitude : b;
    }
}

void snapdb_hash_keys(const void *values, int item, int is_float, int by_bits, uint64_t *keys) {
    if (is_float && !by_bits) {
        if (item == 4)
            for (int i = 0; i < SNAPDB_BLOCK; i++) {
                const uint32_t b = ((const uint32_t *)values)[i], m = b & 0x7fffffffu;
                keys[i] = m == 0 ? 0 : m > 0x7f800000u ? 0x7fc00000u : b;
            }
        else
            for (int i = 0; i < SNAPDB_BLOCK; i++) {
                const uint64_t b = ((const uint64_t *)values)[i], m = b & 0x7fffffffffffffffu;
                keys[i] = m == 0 ? 0 : m > 0x7ff0000000000000u ? 0x7ff8000000000000u : b;
            }
        return;
    }
    switch (item) {
        case 1: KEYS(uint8_t, x)
        case 2: KEYS(uint16_t, x)
        case 4: KEYS(uint32_t, x)
        default: KEYS(uint64_t, x)
    }
}

/* -- groups ------------------------------------------------------------------------------------------------------------ */

static inline uint64_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    x ^= x >> 32;
    x *= 0xd6e8feb86659fd93u;
    return x ^ (x >> 32);
}

static inline uint32_t load32(const uint8_t *at) {
    uint32_t x;
    memcpy(&x, at, 4);
    return x;
}

/* the last 1 to 8 bytes of a string, without a call for so few */
static inline uint64_t load_tail(const uint8_t *ptr, size_t size) {
    if (size >= 4) return (uint64_t)load32(ptr) << 32 | load32(ptr + size - 4);
    return (uint64_t)ptr[0] << 16 | (uint64_t)ptr[size >> 1] << 8 | ptr[size - 1];
}

static inline uint64_t hash_string(const uint8_t *ptr, size_t size) {
    uint64_t h = (uint64_t)size * 0x9e3779b97f4a7c15u;
    while (size > 8) {
        h = (h ^ load64(ptr)) * 0xd6e8feb86659fd93u;
        h ^= h >> 32;
        ptr += 8;
        size -= 8;
    }
    return size ? mix(h ^ load_tail(ptr, size)) : h;
}

static inline int same_string(const uint8_t *a, const uint8_t *b, size_t size) {
    while (size > 8) {
        if (load64(a) != load64(b)) return 0;
        a += 8;
        b += 8;
        size -= 8;
    }
    return size == 0 || load_tail(a, size) == load_tail(b, size);
}

/* Empty slots of a table. 0, or -1 without memory. */
static int new_table(SnapdbGroups *g, size_t capacity) {
    if (g->hashed) {
        g->table = (SnapdbSlot *)PyMem_RawMalloc(capacity * sizeof(SnapdbSlot));
        if (!g->table) return -1;
        for (size_t i = 0; i < capacity; i++) g->table[i].group = SNAPDB_NONE;
    } else {
        g->slots = (uint32_t *)PyMem_RawMalloc(capacity * sizeof(uint32_t));
        if (!g->slots) return -1;
        memset(g->slots, 0xff, capacity * sizeof(uint32_t));
    }
    g->capacity = capacity;
    return 0;
}

int snapdb_groups_start(SnapdbGroups *g, size_t direct, int strings, uint32_t limit) {
    memset(g, 0, sizeof *g);
    g->limit = limit;
    g->null_group = SNAPDB_NONE;
    g->strings = strings;
    g->hashed = !direct && !strings;
    g->room = 256;
    g->first = (uint32_t *)PyMem_RawMalloc(g->room * sizeof(uint32_t));
    if (strings) g->entries = (SnapdbEntry *)PyMem_RawMalloc(g->room * sizeof(SnapdbEntry));
    if (!g->first || (strings && !g->entries) || new_table(g, direct ? direct : 1024)) {
        snapdb_groups_free(g);
        return -1;
    }
    return 0;
}

void snapdb_groups_free(SnapdbGroups *g) {
    PyMem_RawFree(g->slots);
    PyMem_RawFree(g->table);
    PyMem_RawFree(g->entries);
    PyMem_RawFree(g->first);
    g->slots = g->first = NULL;
    g->table = NULL;
    g->entries = NULL;
}

/* A new group whose first row is `row`; its number, or SNAPDB_NONE with *problem set. */
static uint32_t new_group(SnapdbGroups *g, uint32_t row, int *problem) {
    if (g->groups >= g->limit) {
        *problem = 1;
        return SNAPDB_NONE;
    }
    if (g->groups == g->room) {
        const size_t room = g->room * 2;
        uint32_t *first = (uint32_t *)PyMem_RawRealloc(g->first, room * sizeof(uint32_t));
        if (first) g->first = first;
        SnapdbEntry *entries = g->entries;
        if (first && g->strings) {
            entries = (SnapdbEntry *)PyMem_RawRealloc(g->entries, room * sizeof(SnapdbEntry));
            if (entries) g->entries = entries;
        }
        if (!first || (g->strings && !entries)) {
            *problem = -1;
            return SNAPDB_NONE;
        }
        g->room = room;
    }
    g->first[g->groups] = row;
    return g->groups++;
}

/* More slots. 0, or -1 without memory. */
static int grow(SnapdbGroups *g) {
    const size_t old = g->capacity, capacity = old < 32768 ? old * 4 : old * 2, mask = capacity - 1;
    uint32_t *slots = g->slots;
    SnapdbSlot *table = g->table;
    if (new_table(g, capacity)) {
        g->slots = slots;
        g->table = table;
        return -1;
    }
    for (size_t i = 0; i < old; i++) {
        const uint32_t group = g->hashed ? table[i].group : slots[i];
        if (group == SNAPDB_NONE) continue;
        size_t at = (size_t)(g->hashed ? mix(table[i].key) : g->entries[group].hash) & mask;
        if (g->hashed) {
            while (g->table[at].group != SNAPDB_NONE) at = (at + 1) & mask;
            g->table[at] = table[i];
        } else {
            while (g->slots[at] != SNAPDB_NONE) at = (at + 1) & mask;
            g->slots[at] = group;
        }
    }
    PyMem_RawFree(slots);
    PyMem_RawFree(table);
    return 0;
}

static inline uint32_t direct_group(SnapdbGroups *g, uint32_t code, uint32_t row, int *problem) {
    uint32_t group = g->slots[code];
    if (group == SNAPDB_NONE) {
        group = new_group(g, row, problem);
        g->slots[code] = group;
        if (g->kinds && group != SNAPDB_NONE && g->kinds[code])
            for (size_t i = 0; i < g->codes; i++)
                if (g->kinds[i] == g->kinds[code]) g->slots[i] = group;
    }
    return group;
}

static inline uint32_t key_group(SnapdbGroups *g, uint64_t key, uint32_t row, int *problem) {
    size_t at = (size_t)mix(key) & (g->capacity - 1);
    for (; g->table[at].group != SNAPDB_NONE; at = (at + 1) & (g->capacity - 1))
        if (g->table[at].key == key) return g->table[at].group;
    const uint32_t group = new_group(g, row, problem);
    if (group == SNAPDB_NONE) return group;
    g->table[at].group = group;
    g->table[at].key = key;
    if ((size_t)g->groups * 2 > g->capacity && grow(g)) *problem = -1;
    return group;
}

static uint32_t string_group(SnapdbGroups *g, const uint8_t *ptr, size_t size, uint32_t row, int *problem) {
    const uint64_t hash = hash_string(ptr, size);
    size_t at = (size_t)hash & (g->capacity - 1);
    for (; g->slots[at] != SNAPDB_NONE; at = (at + 1) & (g->capacity - 1)) {
        const SnapdbEntry *e = &g->entries[g->slots[at]];
        if (e->hash == hash && e->size == size && same_string(e->ptr, ptr, size)) return g->slots[at];
    }
    const uint32_t group = new_group(g, row, problem);
    if (group == SNAPDB_NONE) return group;
    g->slots[at] = group;
    g->entries[group].ptr = ptr;
    g->entries[group].size = size;
    g->entries[group].hash = hash;
    if ((size_t)g->groups * 2 > g->capacity && grow(g)) *problem = -1;
    return group;
}

/* the null group needs an entry too: one that no string equals */
static uint32_t null_group(SnapdbGroups *g, uint32_t row, int *problem) {
    if (g->null_group == SNAPDB_NONE) {
        g->null_group = new_group(g, row, problem);
        if (g->strings && g->null_group != SNAPDB_NONE) memset(&g->entries[g->null_group], 0, sizeof(SnapdbEntry));
    }
    return g->null_group;
}

/* `group_of` numbers row + i; whole words of plain selected rows take the short loop */
#define GROUP_ROWS(group_of)                                                                          \
    int problem = 0;                                                                                  \
    for (size_t w = 0; w * 64 < n; w++) {                                                             \
        const size_t stop = n - w * 64 < 64 ? n : w * 64 + 64;                                        \
        const uint64_t s = selected ? selected[w] : ~(uint64_t)0, z = nulls ? nulls[w] : 0;           \
        if (s == ~(uint64_t)0 && z == 0) {                                                            \
            for (size_t i = w * 64; i < stop; i++) out[i] = group_of;                                 \
        } else {                                                                                      \
            for (size_t i = w * 64; i < stop; i++) {                                                  \
                if (!((s >> (i & 63)) & 1)) out[i] = SNAPDB_NONE;                                     \
                else if ((z >> (i & 63)) & 1) out[i] = null_group(g, row + (uint32_t)i, &problem);    \
                else out[i] = group_of;                                                               \
            }                                                                                         \
        }                                                                                             \
        if (problem) return problem;                                                                  \
    }                                                                                                 \
    return 0;

int snapdb_group_direct(SnapdbGroups *g, const uint32_t *codes, const uint64_t *selected, const uint64_t *nulls, uint32_t row,
                        size_t n, uint32_t *out) {
    if (n == SNAPDB_BLOCK && !nulls && all_set(selected)) { /* after the first block no group is new as a rule */
        const uint32_t *slots = g->slots;
        uint32_t missing = 0;
        for (size_t i = 0; i < SNAPDB_BLOCK; i++) {
            const uint32_t group = slots[codes[i]];
            out[i] = group;
            missing |= group == SNAPDB_NONE;
        }
        if (!missing) return 0;
    }
    GROUP_ROWS(direct_group(g, codes[i], row + (uint32_t)i, &problem))
}

int snapdb_group_keys(SnapdbGroups *g, const uint64_t *keys, const uint64_t *selected, const uint64_t *nulls, uint32_t row,
                      size_t n, uint32_t *out) {
    GROUP_ROWS(key_group(g, keys[i], row + (uint32_t)i, &problem))
}

int snapdb_group_strings(SnapdbGroups *g, const uint8_t *offsets, int offset_width, const uint8_t *heap, const uint64_t *selected,
                         const uint64_t *nulls, uint32_t row, size_t n, uint32_t *out) {
    if (offset_width == 4) {
        const uint32_t *o = (const uint32_t *)offsets;
        GROUP_ROWS(string_group(g, heap + o[i], o[i + 1] - o[i], row + (uint32_t)i, &problem))
    } else {
        const uint64_t *o = (const uint64_t *)offsets;
        GROUP_ROWS(string_group(g, heap + o[i], (size_t)(o[i + 1] - o[i]), row + (uint32_t)i, &problem))
    }
}

int snapdb_group_add(SnapdbGroups *g, const uint8_t *ptr, size_t size) {
    int problem = 0;
    string_group(g, ptr, size, 0, &problem);
    return problem;
}

int snapdb_has_key(const SnapdbGroups *g, uint64_t key) {
    size_t at = (size_t)mix(key) & (g->capacity - 1);
    for (; g->table[at].group != SNAPDB_NONE; at = (at + 1) & (g->capacity - 1))
        if (g->table[at].key == key) return 1;
    return 0;
}

int snapdb_has_string(const SnapdbGroups *g, const uint8_t *ptr, size_t size) {
    const uint64_t hash = hash_string(ptr, size);
    size_t at = (size_t)hash & (g->capacity - 1);
    for (; g->slots[at] != SNAPDB_NONE; at = (at + 1) & (g->capacity - 1)) {
        const SnapdbEntry *e = &g->entries[g->slots[at]];
        if (e->hash == hash && e->size == size && same_string(e->ptr, ptr, size)) return 1;
    }
    return 0;
}

void snapdb_match_keys(const SnapdbGroups *g, const uint64_t *keys, uint8_t *bits) {
    for (int i = 0; i < SNAPDB_BLOCK; i += 8) {
        unsigned x = 0;
        for (int j = 0; j < 8; j++) x |= (unsigned)snapdb_has_key(g, keys[i + j]) << j;
        bits[i >> 3] = (uint8_t)x;
    }
}

/* -- ranks ------------------------------------------------------------------------------------------------------------- */

typedef struct {
    uint64_t key;
    uint32_t group;
} RankedKey;

typedef struct {
    const SnapdbEntry *entry;
    uint64_t prefix; /* the first 8 bytes, most significant first: settles most comparisons */
    uint32_t group;
} RankedString;

int snapdb_compare(const void *a, size_t a_size, const void *b, size_t b_size) {
    const size_t size = a_size < b_size ? a_size : b_size;
    const int order = size ? memcmp(a, b, size) : 0;
    return order ? order : (a_size > b_size) - (a_size < b_size);
}

static int by_key(const void *a, const void *b) {
    const uint64_t x = ((const RankedKey *)a)->key, y = ((const RankedKey *)b)->key;
    return (x > y) - (x < y);
}

static int by_string(const void *a, const void *b) {
    const RankedString *x = (const RankedString *)a, *y = (const RankedString *)b;
    if (x->prefix != y->prefix) return x->prefix < y->prefix ? -1 : 1;
    return snapdb_compare(x->entry->ptr, x->entry->size, y->entry->ptr, y->entry->size);
}

int snapdb_rank_keys(const uint64_t *keys, uint32_t count, uint32_t *order, uint32_t *rank) {
    RankedKey *all = (RankedKey *)PyMem_RawMalloc((count + 1) * sizeof(RankedKey));
    if (!all) return -1;
    for (uint32_t i = 0; i < count; i++) {
        all[i].key = keys[i];
        all[i].group = i;
    }
    qsort(all, count, sizeof(RankedKey), by_key);
    for (uint32_t i = 0; i < count; i++) {
        order[i] = all[i].group;
        rank[all[i].group] = i;
    }
    PyMem_RawFree(all);
    return 0;
}

int snapdb_rank_strings(const SnapdbEntry *entries, uint32_t count, uint32_t *order, uint32_t *rank) {
    RankedString *all = (RankedString *)PyMem_RawMalloc((count + 1) * sizeof(RankedString));
    if (!all) return -1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t prefix = 0;
        for (size_t j = 0; j < 8; j++) prefix = prefix << 8 | (j < entries[i].size ? entries[i].ptr[j] : 0);
        all[i].entry = &entries[i];
        all[i].prefix = prefix;
        all[i].group = i;
    }
    qsort(all, count, sizeof(RankedString), by_string);
    for (uint32_t i = 0; i < count; i++) {
        order[i] = all[i].group;
        rank[all[i].group] = i;
    }
    PyMem_RawFree(all);
    return 0;
}
