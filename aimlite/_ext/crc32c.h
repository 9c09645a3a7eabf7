/* CRC-32C (Castagnoli, RFC 3720): the checksum of journals, blocks and summaries (docs/format.md).
 *
 * aimlite_crc32c(crc, data, n) continues crc, the finished CRC of the bytes before (0 for none), so that
 * crc(b, crc(a)) = crc(a + b). It uses the processor's instruction where there is one (SSE 4.2 found at run time on
 * x86-64, the ARMv8 one where the compiler may assume it), else tables. The instruction takes three cycles but can start
 * each cycle, hence long inputs are cut in three stripes that advance side by side; a table joins their CRCs.
 */
#ifndef AIMLITE_CRC32C_H
#define AIMLITE_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "aimlite supports little-endian processors only"
#endif

#if defined(__x86_64__)
#include <nmmintrin.h>
#define AIMLITE_CRC_HARDWARE __builtin_cpu_supports("sse4.2")
#define AIMLITE_CRC_TARGET __attribute__((target("sse4.2")))
#define AIMLITE_CRC_BYTE(crc, byte) _mm_crc32_u8((crc), (byte))
#define AIMLITE_CRC_WORD(crc, word) ((uint32_t)_mm_crc32_u64((crc), (word)))
#elif defined(__aarch64__) && defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#define AIMLITE_CRC_HARDWARE 1
#define AIMLITE_CRC_TARGET
#define AIMLITE_CRC_BYTE(crc, byte) __crc32cb((crc), (byte))
#define AIMLITE_CRC_WORD(crc, word) __crc32cd((crc), (word))
#endif

#define AIMLITE_CRC_STRIPE 512 /* bytes; a multiple of 8 */

static uint32_t aimlite_crc_bytes[8][256]; /* [k][b]: the register after byte b and k zero bytes */
#ifdef AIMLITE_CRC_HARDWARE
static uint32_t aimlite_crc_stripe[4][256]; /* [k][b]: the register b << 8k after a stripe of zero bytes */
static int aimlite_crc_hardware;            /* 1: use the instruction */
#endif

static inline uint64_t aimlite_crc_load(const unsigned char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* Runs when the extension module is loaded, before any thread can ask for a CRC. */
__attribute__((constructor)) static void aimlite_crc_build(void) {
    for (int b = 0; b < 256; b++) {
        uint32_t crc = (uint32_t)b;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0u);
        aimlite_crc_bytes[0][b] = crc;
    }
    for (int k = 1; k < 8; k++)
        for (int b = 0; b < 256; b++) {
            uint32_t crc = aimlite_crc_bytes[k - 1][b];
            aimlite_crc_bytes[k][b] = (crc >> 8) ^ aimlite_crc_bytes[0][crc & 0xff];
        }
#ifdef AIMLITE_CRC_HARDWARE
    uint32_t basis[32]; /* advancing over zeros is linear: the image of each bit says it all */
    for (int bit = 0; bit < 32; bit++) {
        uint32_t crc = (uint32_t)1 << bit;
        for (int i = 0; i < AIMLITE_CRC_STRIPE; i++) crc = (crc >> 8) ^ aimlite_crc_bytes[0][crc & 0xff];
        basis[bit] = crc;
    }
    for (int k = 0; k < 4; k++)
        for (int b = 0; b < 256; b++) {
            uint32_t crc = 0;
            for (int bit = 0; bit < 8; bit++) crc ^= (b >> bit) & 1 ? basis[8 * k + bit] : 0u;
            aimlite_crc_stripe[k][b] = crc;
        }
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
    aimlite_crc_hardware = AIMLITE_CRC_HARDWARE ? 1 : 0;
#endif
}

/* Slicing-by-8: eight bytes by eight table look-ups that do not wait for each other. */
static inline uint32_t aimlite_crc_by_tables(uint32_t crc, const unsigned char *at, size_t n) {
    for (; n >= 8; n -= 8, at += 8) {
        uint64_t word = aimlite_crc_load(at) ^ crc;
        crc = aimlite_crc_bytes[7][word & 0xff] ^ aimlite_crc_bytes[6][(word >> 8) & 0xff] ^
              aimlite_crc_bytes[5][(word >> 16) & 0xff] ^ aimlite_crc_bytes[4][(word >> 24) & 0xff] ^
              aimlite_crc_bytes[3][(word >> 32) & 0xff] ^ aimlite_crc_bytes[2][(word >> 40) & 0xff] ^
              aimlite_crc_bytes[1][(word >> 48) & 0xff] ^ aimlite_crc_bytes[0][word >> 56];
    }
    for (; n > 0; n--, at++) crc = (crc >> 8) ^ aimlite_crc_bytes[0][(crc ^ *at) & 0xff];
    return crc;
}

#ifdef AIMLITE_CRC_HARDWARE
static inline uint32_t aimlite_crc_over_stripe(uint32_t crc) {
    return aimlite_crc_stripe[0][crc & 0xff] ^ aimlite_crc_stripe[1][(crc >> 8) & 0xff] ^
           aimlite_crc_stripe[2][(crc >> 16) & 0xff] ^ aimlite_crc_stripe[3][crc >> 24];
}

AIMLITE_CRC_TARGET static inline uint32_t aimlite_crc_by_instruction(uint32_t crc, const unsigned char *at, size_t n) {
    for (; n >= 3 * AIMLITE_CRC_STRIPE; n -= 3 * AIMLITE_CRC_STRIPE, at += 3 * AIMLITE_CRC_STRIPE) {
        uint32_t second = 0, third = 0;
        for (size_t i = 0; i < AIMLITE_CRC_STRIPE; i += 8) {
            crc = AIMLITE_CRC_WORD(crc, aimlite_crc_load(at + i));
            second = AIMLITE_CRC_WORD(second, aimlite_crc_load(at + AIMLITE_CRC_STRIPE + i));
            third = AIMLITE_CRC_WORD(third, aimlite_crc_load(at + 2 * AIMLITE_CRC_STRIPE + i));
        }
        crc = aimlite_crc_over_stripe(crc) ^ second;
        crc = aimlite_crc_over_stripe(crc) ^ third;
    }
    for (; n >= 8; n -= 8, at += 8) crc = AIMLITE_CRC_WORD(crc, aimlite_crc_load(at));
    for (; n > 0; n--, at++) crc = AIMLITE_CRC_BYTE(crc, *at);
    return crc;
}
#endif

static inline uint32_t aimlite_crc32c(uint32_t crc, const void *data, size_t n) {
    const unsigned char *at = (const unsigned char *)data;
#ifdef AIMLITE_CRC_HARDWARE
    if (aimlite_crc_hardware) return ~aimlite_crc_by_instruction(~crc, at, n);
#endif
    return ~aimlite_crc_by_tables(~crc, at, n);
}

#endif
