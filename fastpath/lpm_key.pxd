# Addresses and prefixes: as text, without Python objects, and as the keys of a route table.
#
# Owns: reading and writing the notations of both families; reading keys of every kind.
# Never: guesses; text that is not exactly an address or a prefix is refused.
# Invariant: what `prefix_write` wrote, `prefix_read` reads back.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from fastpath.table.fib_rows cimport prefix

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t load_be64(const uint8_t *p)
    {
        uint64_t x;
        memcpy(&x, p, 8);
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        x = __builtin_bswap64(x);
    #endif
        return x;
    }
    """
    uint64_t load_be64(const uint8_t *p) noexcept nogil

cdef extern from *:
    """
    /* One more than the digit's value; 0: no digit. Which kind of digit comes next cannot be foreseen: no branches. */
    static const uint8_t hexadecimal_digits[256] = {
        ['0'] = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ['a'] = 11, 12, 13, 14, 15, 16, ['A'] = 11, 12, 13, 14, 15, 16,
    };
    """
    const uint8_t hexadecimal_digits[256]

cdef enum:
    TEXT_MAX = 50              # "xxxx:...:255.255.255.255/128" and its end
    KEY_ADDRESS = 0x100        # flag of prefix_read: the text had no "/length"
    NO_GAP = 9                 # an address without "::"

cdef inline const char *number_read(const char *text, const char *end, uint32_t most, uint32_t *number) noexcept nogil:
    """One decimal number 0..most without leading zeroes: behind it, or NULL."""
    cdef const char *p = text
    number[0] = 0
    while p < end and 48 <= p[0] <= 57 and p - text < 3:
        number[0] = number[0] * 10 + <uint32_t>(p[0] - 48)
        p += 1
    if p == text or number[0] > most or (text[0] == 48 and p - text > 1):
        return NULL
    return p

cdef inline const char *ipv4_read(const char *text, const char *end, uint32_t *address) noexcept nogil:
    """Four numbers with dots: behind them, or NULL."""
    cdef uint32_t number, i
    address[0] = 0
    for i in range(4):
        if i:
            if text == end or text[0] != 46:
                return NULL
            text += 1
        text = number_read(text, end, 255, &number)
        if text == NULL:
            return NULL
        address[0] = address[0] << 8 | number
    return text

cdef inline const char *group_read(const char *text, const char *end, uint32_t *group) noexcept nogil:
    """Up to four hexadecimal digits, perhaps none: behind them."""
    cdef const char *most = text + 4 if end - text > 4 else end
    cdef uint32_t digit, number = 0
    while text < most:
        digit = hexadecimal_digits[<uint8_t>text[0]]
        if digit == 0:
            break
        number = 16 * number + digit - 1
        text += 1
    group[0] = number
    return text

cdef inline void groups_join(const uint32_t *groups, uint32_t n, uint32_t gap, prefix *p) noexcept nogil:
    """An address of n groups, with zeroes before group `gap` where there are fewer than eight."""
    cdef uint64_t halves[2]
    cdef uint32_t i, place
    halves[0] = halves[1] = 0
    for i in range(n):
        place = i if i < gap else i + 8 - n
        halves[place >> 2] |= <uint64_t>groups[i] << (48 - 16 * (place & 3))
    p.high, p.low = halves[0], halves[1]

cdef inline const char *ipv6_read(const char *text, const char *end, prefix *p) noexcept nogil:
    """An IPv6 address in any form that inet_pton takes: behind it, or NULL."""
    cdef uint32_t groups[8]
    cdef uint32_t group, n = 0, gap = NO_GAP
    cdef const char *start
    if end - text >= 2 and text[0] == 58 and text[1] == 58:
        gap = 0
        text += 2
    while True:
        start = text
        text = group_read(start, end, &group)
        if text == start:
            if n != gap:                             # nothing follows a colon but that of "::"
                return NULL
            break
        if n <= 6 and text < end and text[0] == 46:
            text = ipv4_read(start, end, &group)
            if text == NULL:
                return NULL
            groups[n], groups[n + 1] = group >> 16, group & 0xffff
            n += 2
            break
        if n == 8:
            return NULL
        groups[n] = group
        n += 1
        if text == end or text[0] != 58:
            break
        text += 1
        if text < end and text[0] == 58:
            if gap != NO_GAP:
                return NULL
            gap = n
            text += 1
    if (n == 8) != (gap == NO_GAP):                  # "::" is one group at least
        return NULL
    groups_join(groups, n, gap, p)
    return text

cdef inline int prefix_read(const char *text, uint32_t n, prefix *p) noexcept nogil:
    """Fill `p` from "address" or "address/length": 4 or 6, with KEY_ADDRESS for the first form; 0 when malformed."""
    cdef const char *end = text + n
    cdef const char *rest
    cdef uint32_t address
    cdef int version = 4
    rest = ipv4_read(text, end, &address)
    if rest != NULL:
        p.high = <uint64_t>address << 32
        p.low = 0
    else:
        version = 6
        rest = ipv6_read(text, end, p)
        if rest == NULL:
            return 0
    if rest == end:
        p.length = 32 if version == 4 else 128
        return version | KEY_ADDRESS
    if rest[0] != 47 or number_read(rest + 1, end, 32 if version == 4 else 128, &p.length) != end:
        return 0
    return version

cdef inline uint32_t decimal_write(uint32_t number, char *text) noexcept nogil:
    """A number of up to three digits; how many bytes."""
    cdef uint32_t n = 3 if number >= 100 else 2 if number >= 10 else 1
    cdef uint32_t i = n
    while i:
        i -= 1
        text[i] = <char>(48 + number % 10)
        number //= 10
    return n

cdef inline uint32_t hexadecimal_write(uint32_t number, char *text) noexcept nogil:
    """A number of up to four digits; how many bytes."""
    cdef uint32_t n = 4 if number >= 0x1000 else 3 if number >= 0x100 else 2 if number >= 0x10 else 1
    cdef uint32_t i = n
    while i:
        i -= 1
        text[i] = <char>((48 if number & 15 < 10 else 87) + (number & 15))
        number >>= 4
    return n

cdef inline uint32_t ipv4_write(uint64_t high, char *text) noexcept nogil:
    cdef uint32_t n = 0, i
    for i in range(4):
        if i:
            text[n] = 46
            n += 1
        n += decimal_write(<uint32_t>(high >> (56 - 8 * i)) & 255, text + n)
    return n

cdef inline uint32_t ipv6_write(uint64_t high, uint64_t low, char *text) noexcept nogil:
    """RFC 5952: the first of the longest runs of two or more zero groups becomes "::"; no dotted form."""
    cdef uint32_t groups[8]
    cdef uint32_t i, run = 0, best = 1, best_end = 0, n = 0
    for i in range(8):
        groups[i] = <uint32_t>((high if i < 4 else low) >> (48 - 16 * (i & 3))) & 0xffff
        run = 0 if groups[i] else run + 1
        if run > best:
            best, best_end = run, i + 1
    i = 0
    while i < 8:
        if best_end and i == best_end - best:
            text[n] = text[n + 1] = 58
            n += 2
            i = best_end
            continue
        if i and i != best_end:
            text[n] = 58
            n += 1
        n += hexadecimal_write(groups[i], text + n)
        i += 1
    return n

cdef inline uint32_t prefix_write(int version, uint64_t high, uint64_t low, uint32_t length, char *text) noexcept nogil:
    """Write "address/length" (TEXT_MAX bytes of room); how many bytes."""
    cdef uint32_t n = ipv4_write(high, text) if version == 4 else ipv6_write(high, low, text)
    text[n] = 47
    return n + 1 + decimal_write(length, text + n + 1)

# -- prefixes ----------------------------------------------------------------------

cdef inline uint64_t high_mask(uint32_t length) noexcept nogil:
    return ~<uint64_t>0 if length >= 64 else ~(~<uint64_t>0 >> length)

cdef inline uint64_t low_mask(uint32_t length) noexcept nogil:
    return 0 if length <= 64 else high_mask(length - 64)

# -- keys (lpm_key.pyx) --------------------------------------------------------------

# Fill `p`: 4 or 6, with KEY_ADDRESS when the key gave no length. Host bits are errors.
cdef int read_key(object key, prefix *p) except -1
# A prefix as text; bits behind the length are to be clear.
cdef object text_of(int version, uint64_t high, uint64_t low, uint32_t length)
