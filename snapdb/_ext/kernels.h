/* Loops over whole blocks, compiled once per SIMD level and chosen once at import; and the hash tables behind groups.
 *
 * A block is 1,024 values. Every loop below that says "a block" reads and writes exactly that many values, so that the
 * compiler sees constant trip counts; callers pad the last block of a view. Bitmaps are 128 bytes a block.
 * Nothing here knows Python, and nothing here checks: lengths, widths and codes are checked by the callers.
 */
#ifndef SNAPDB_KERNELS_H
#define SNAPDB_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernels read little-endian words; use the pure-Python kernels on this machine"
#endif

#if defined(__GNUC__)
#define SNAPDB_LOCAL __attribute__((visibility("hidden")))
#else
#define SNAPDB_LOCAL
#endif

#define SNAPDB_BLOCK 1024
#define SNAPDB_NONE 0xFFFFFFFFu /* no group */

/* Index of a container or value width in the tables below: 8 -> 0, 16 -> 1, 32 -> 2, 64 -> 3 bits. */
typedef struct {
    const char *level;
    /* one block of W-bit values and its T-bit containers, W <= T */
    void (*unpack)(const void *packed, int W, int T, void *out);
    void (*pack)(const void *values, int W, int T, void *packed);
    /* bits of a block: (v - lo) <= span, modulo the width; lo <= v <= hi for floats */
    void (*range[4])(const void *values, uint64_t lo, uint64_t span, uint8_t *bits);
    void (*range_f32)(const void *values, float lo, float hi, uint8_t *bits);
    void (*range_f64)(const void *values, double lo, double hi, uint8_t *bits);
    /* bits of a block: table[v] (0 or 1), v unsigned */
    void (*lut[3])(const void *values, const uint8_t *table, uint8_t *bits);
    /* a block's bits as bytes 0x00 / 0xFF, and values where they say so, else fill */
    void (*expand)(const void *bits, uint8_t *bytes);
    void (*blend[4])(const void *values, const uint8_t *bytes, uint64_t fill, void *out);
    /* least and greatest of n values (a multiple of 64, not 0), [signed][width], sign- or zero-extended */
    void (*minmax[2][4])(const void *values, size_t n, uint64_t *lo, uint64_t *hi);
    /* floats: least and greatest sign-folded bits of the values that are no NaN (lo > hi: there is none), NaNs counted */
    void (*minmax_f32)(const void *values, size_t n, int64_t *lo, int64_t *hi, uint64_t *nans);
    void (*minmax_f64)(const void *values, size_t n, int64_t *lo, int64_t *hi, uint64_t *nans);
    /* adds a block's sum, lo + hi * 2**32, to both parts: neither wraps below 2**31 values */
    void (*sum[2][4])(const void *values, int64_t *lo, int64_t *hi);
    /* total plus the sum of each block of floats in turn, the last one of fewer: 32 lanes from +0.0, folded by halves */
    double (*sum_f32)(const void *values, int64_t rows, double total);
    double (*sum_f64)(const void *values, int64_t rows, double total);
    /* as if the rows whose bit is not set were +0.0 */
    double (*sum_f32_where)(const void *values, const uint64_t *bits);
    double (*sum_f64_where)(const void *values, const uint64_t *bits);
    /* a block of values modulo the target width, plus a constant: [from][to] */
    void (*convert[4][4])(const void *values, uint64_t add, void *out);
    /* the sum of a packed block that is never unpacked; only where W + log2(T) <= T, so that no lane overflows */
    uint64_t (*sum_packed)(const void *packed, int W, int T);
    /* a block of T-bit values: out = v * mul + add modulo 2**64 */
    void (*scale[4])(const void *values, uint64_t mul, uint64_t add, uint64_t *out);
    /* a block of SLOPE, modulo 2**64: base + step * (r * whole + (r * fraction >> 32) + code); fraction below 2**32 */
    void (*line)(const uint64_t *codes, uint64_t base, uint64_t step, uint64_t whole, uint64_t fraction, uint64_t *out);
    /* and what is left of it: v - first - r * whole - (r * fraction >> 32) */
    void (*residual)(const uint64_t *values, uint64_t first, uint64_t whole, uint64_t fraction, uint64_t *out);
    /* a block of decimals d (two's complement, |d| <= 2**51) as floats: d / up, or (d * up) * down */
    void (*decimals)(const uint64_t *d, double up, double down, int divide, double *out);
    /* the other way: d = rint(v * power); odd[i] = 1 where d / power is not v again, bit for bit, or too large; how many */
    int (*decimal_codes)(const double *values, double power, int64_t *d, uint8_t *odd);
    int (*decimal_codes_f32)(const float *values, double power, int64_t *d, uint8_t *odd);
    /* how many of n values differ from the one before */
    uint64_t (*changes[4])(const void *values, size_t n);
    /* whether every one of n - 1 differences is step, modulo the width */
    int (*steady[4])(const void *values, size_t n, uint64_t step);
    /* target[i] = bytes[i] and codes[i] < groups ? codes[i] : groups, n <= 1,024; whether every code is a group or none */
    int (*slots)(const uint32_t *codes, const uint8_t *bytes, size_t n, uint32_t groups, uint32_t *target);
    /* words of bitmaps */
    void (*and_words)(uint8_t *target, const uint8_t *other, size_t words);
    void (*or_words)(uint8_t *target, const uint8_t *other, size_t words);
    void (*andnot_words)(uint8_t *target, const uint8_t *other, size_t words);
    uint64_t (*popcount)(const void *bits, size_t words);
} SnapdbKernels;

/* The chosen level; NULL before snapdb_choose. */
extern SNAPDB_LOCAL const SnapdbKernels *snapdb_kernels;

/* Choose a level by name ("" for the best the CPU has). NULL, or why not. */
SNAPDB_LOCAL const char *snapdb_choose(const char *name);

/* -- bitmaps, one row at a time ------------------------------------------------------------------------------------ */

/* Selected rows after the first `skip` into out, at most `limit`; how many. */
SNAPDB_LOCAL size_t snapdb_ids(const uint8_t *bits, size_t words, uint64_t skip, size_t limit, uint32_t *out);
/* rows bits from bit `start` of source to bit 0 of target; whole words of target are written, bits past rows are 0. */
SNAPDB_LOCAL void snapdb_copy_bits(const uint8_t *source, size_t start, size_t rows, uint8_t *target);
/* Set bits start..stop. */
SNAPDB_LOCAL void snapdb_fill_bits(uint8_t *bits, size_t start, size_t stop);
/* values[i] = value (item bytes) wherever bit i is set. */
SNAPDB_LOCAL void snapdb_fill_at(void *values, int item, const uint8_t *bits, size_t rows, uint64_t value);

/* -- blocks without SIMD ------------------------------------------------------------------------------------------- */

/* out[i] = table[codes[i]] (item bytes) for a block of T-bit codes. */
SNAPDB_LOCAL void snapdb_lookup(const void *codes, int T, const void *table, int item, void *out);
/* A block of equal values of item bytes. */
SNAPDB_LOCAL void snapdb_fill(void *out, int item, uint64_t value);
/* One W-bit value of packed blocks. */
SNAPDB_LOCAL uint64_t snapdb_packed_at(const uint8_t *packed, int W, int T, size_t row);

/* histogram[bits] += 1 for the bit length (0 to 64) of each code of a block that valid (NULL: all) selects. */
SNAPDB_LOCAL void snapdb_widths(const void *codes, int T, const uint64_t *valid, uint32_t *histogram65);
/* Put n exceptions into a block of codes: rows of the chunk, all in this block. */
SNAPDB_LOCAL void snapdb_patch(void *codes, int T, const uint16_t *rows, const void *exceptions, size_t n);
/* A block of codes that starts at a row of the chunk, from runs: each one's last row and code; `run` has the first row. */
SNAPDB_LOCAL void snapdb_runs(void *codes, int T, const uint16_t *last, const void *run_codes, size_t run, size_t row);

/* A block grouped by its codes, four accumulators to a code (row mod 4); rows that are not live (NULL: all are) go to the
 * code `none`. n <= 1,024. */
SNAPDB_LOCAL void snapdb_tally(const void *codes, int T, const uint64_t *live, size_t n, uint32_t none, uint32_t *counts4);
SNAPDB_LOCAL void snapdb_tally_floats(const void *codes, int T, const uint64_t *live, size_t n, uint32_t none, const void *values,
                                      int item, double *sums4);
/* integers of `width` bits; 64 bits: the lower and upper halves apart, else hi4 stays as it is */
SNAPDB_LOCAL void snapdb_tally_ints(const void *codes, int T, const uint64_t *live, size_t n, uint32_t none, const void *values,
                                    int width, int is_signed, int64_t *lo4, int64_t *hi4);

/* Per-slot accumulators, four to a slot (row mod 4); slots are the result of SnapdbKernels.slots. */
SNAPDB_LOCAL void snapdb_count_slots(const uint32_t *slots, size_t n, uint32_t *counts);
SNAPDB_LOCAL void snapdb_sum_slots(const uint32_t *slots, size_t n, const void *values, int width, int is_signed, int64_t *lo,
                                   int64_t *hi);
/* Sum and count in one word, sum + count * 2**48: for values of at most 32 bits and at most 65,536 rows. */
SNAPDB_LOCAL void snapdb_offset_slots(const uint32_t *slots, size_t n, const void *values, int width, uint64_t *both);
SNAPDB_LOCAL void snapdb_fsum_slots(const uint32_t *slots, size_t n, const void *values, int item, double *sums);
/* Least and greatest per slot in the order of signed keys; one a slot. */
SNAPDB_LOCAL void snapdb_bound_slots(const uint32_t *slots, size_t n, const int64_t *keys, int64_t *lo, int64_t *hi);
/* A block of native values as signed keys in the order of the values; floats: NaN rows get slot `none` and set nans. */
SNAPDB_LOCAL void snapdb_order_keys(const void *values, int width, int is_signed, int64_t *keys);
SNAPDB_LOCAL void snapdb_order_floats(const void *values, int item, size_t n, uint32_t *slots, uint32_t none, uint8_t *nans,
                                      int64_t *keys);
/* A block of native values as hash keys; floats: -0.0 as 0.0 and every NaN alike unless `by_bits`. */
SNAPDB_LOCAL void snapdb_hash_keys(const void *values, int item, int is_float, int by_bits, uint64_t *keys);

/* -- groups: an open-addressing table that grows ------------------------------------------------------------------- */

typedef struct {
    const uint8_t *ptr;
    size_t size;
    uint64_t hash;
} SnapdbEntry;

typedef struct {
    uint64_t key;
    uint32_t group;
} SnapdbSlot;

typedef struct {
    uint32_t *slots;      /* direct: the group of each code; strings: of each slot */
    SnapdbSlot *table;    /* hashed keys: one cache line has key and group */
    SnapdbEntry *entries; /* one a group (strings) */
    uint32_t *first;      /* first row of each group */
    size_t capacity;      /* slots, a power of two unless direct */
    size_t room;          /* groups that fit first and entries */
    uint32_t groups, limit, null_group;
    int strings, hashed;
    const uint8_t *kinds;    /* direct floats: 0: of its own, 1: a zero, 2: a NaN; NULL where there is no such code */
    size_t codes;            /* entries of kinds */
} SnapdbGroups;

/* direct: codes 0..direct-1, 0: hashed. 0, or -1 without memory. A grouper full of zeros may be freed. */
SNAPDB_LOCAL int snapdb_groups_start(SnapdbGroups *g, size_t direct, int strings, uint32_t limit);
SNAPDB_LOCAL void snapdb_groups_free(SnapdbGroups *g);
/* Number rows row..row+n (n <= 1,024) into out: selected (NULL: all) rows only, SNAPDB_NONE elsewhere; rows whose bit in
 * nulls (NULL: none) is set are one group of their own. 0, -1 without memory, 1 where the groups exceed the limit. */
SNAPDB_LOCAL int snapdb_group_direct(SnapdbGroups *g, const uint32_t *codes, const uint64_t *selected, const uint64_t *nulls,
                                     uint32_t row, size_t n, uint32_t *out);
SNAPDB_LOCAL int snapdb_group_keys(SnapdbGroups *g, const uint64_t *keys, const uint64_t *selected, const uint64_t *nulls,
                                   uint32_t row, size_t n, uint32_t *out);
SNAPDB_LOCAL int snapdb_group_strings(SnapdbGroups *g, const uint8_t *offsets, int offset_width, const uint8_t *heap,
                                      const uint64_t *selected, const uint64_t *nulls, uint32_t row, size_t n, uint32_t *out);
/* Add one string, as snapdb_group_strings does. */
SNAPDB_LOCAL int snapdb_group_add(SnapdbGroups *g, const uint8_t *ptr, size_t size);
/* Whether a key or string is there. */
SNAPDB_LOCAL int snapdb_has_key(const SnapdbGroups *g, uint64_t key);
SNAPDB_LOCAL int snapdb_has_string(const SnapdbGroups *g, const uint8_t *ptr, size_t size);
/* Bits of a block of keys that are there. */
SNAPDB_LOCAL void snapdb_match_keys(const SnapdbGroups *g, const uint64_t *keys, uint8_t *bits);

/* order[rank] = group, by unsigned key or by bytes; rank[group] = rank. */
SNAPDB_LOCAL int snapdb_rank_keys(const uint64_t *keys, uint32_t count, uint32_t *order, uint32_t *rank);
SNAPDB_LOCAL int snapdb_rank_strings(const SnapdbEntry *entries, uint32_t count, uint32_t *order, uint32_t *rank);

/* memcmp order of strings: negative, 0, positive. */
SNAPDB_LOCAL int snapdb_compare(const void *a, size_t a_size, const void *b, size_t b_size);

#endif
