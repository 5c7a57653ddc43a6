/* Which addresses belong to the public internet. Source: IANA's special-purpose registries (RFC
 * 6890 and successors). Any thread. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "common/str.h"
#include "worker/core/http.h"

static bool v4_is_public(uint32_t a)
{
    static const struct {
        uint32_t net;
        unsigned bits;
    } not_public[] = {
        {0x00000000, 8},  /* this network */
        {0x0a000000, 8},  /* private */
        {0x64400000, 10}, /* shared; a cloud's metadata service, 100.100.100.200 */
        {0x7f000000, 8},  /* loopback */
        {0xa83f8110, 32}, /* Azure's host, 168.63.129.16: public by its number only */
        {0xa9fe0000, 16}, /* link-local; most clouds' metadata services, 169.254.169.254 */
        {0xac100000, 12}, /* private */
        {0xc0000000, 24}, /* protocol assignments; Oracle's metadata, 192.0.0.192 */
        {0xc0000200, 24}, /* documentation */
        {0xc0586300, 24}, /* 6to4 relays */
        {0xc0a80000, 16}, /* private */
        {0xc6120000, 15}, /* benchmarks */
        {0xc6336400, 24}, /* documentation */
        {0xcb007100, 24}, /* documentation */
        {0xe0000000, 3},  /* multicast, reserved, broadcast */
    };
    for (size_t i = 0; i < sizeof not_public / sizeof not_public[0]; i++)
        if ((a ^ not_public[i].net) >> (32 - not_public[i].bits) == 0)
            return false;
    return true;
}

/* Only 2000::/3 is given out; NAT64 and the mapped form stand for the IPv4 inside. */
static bool v6_is_public(const unsigned char a[16])
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
    static const unsigned char nat64[12] = {0x00, 0x64, 0xff, 0x9b};
    static const unsigned char documentation[4] = {0x20, 0x01, 0x0d, 0xb8};
    if (memcmp(a, mapped, sizeof mapped) == 0 || memcmp(a, nat64, sizeof nat64) == 0)
        return v4_is_public(dr_get_u32be(a + 12));
    if (a[0] >> 5 != 1 || memcmp(a, documentation, sizeof documentation) == 0)
        return false;
    if (a[0] == 0x20 && a[1] == 0x01 && a[2] < 2) /* 2001::/23: Teredo, ORCHID, .. */
        return false;
    if (a[0] == 0x20 && a[1] == 0x02) /* 6to4 */
        return v4_is_public(dr_get_u32be(a + 2));
    return !(a[0] == 0x3f && a[1] == 0xff && a[2] < 0x10); /* documentation */
}

bool http_address_is_public(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, a, sizeof in);
        return v4_is_public(ntohl(in.sin_addr.s_addr));
    }
    if (a->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, a, sizeof in6);
        return v6_is_public(in6.sin6_addr.s6_addr);
    }
    return false;
}
