/* The tiny guest's own programs, told apart by the name they are called by.
 *
 * rawframe IFACE PART...   send one Ethernet frame as it is given: the parts are hexadecimal bytes, or "src" for
 *                          the interface's own address. Short frames are padded. What a guest must not be able to
 *                          send (BPDUs, tags, forged senders) can only be tested by sending it.
 * sudo COMMAND...          as root, without a password, as cloud images have it. Set-user-id.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <err.h>
#include <grp.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int rawframe(int argc, char **argv)
{
    unsigned char frame[9216] = {0};
    size_t size = 0;
    struct ifreq request = {0};
    struct sockaddr_ll to = {.sll_family = AF_PACKET};
    int fd;

    if (argc < 3)
        errx(2, "usage: rawframe IFACE HEX|src...");
    fd = socket(AF_PACKET, SOCK_RAW, 0); /* protocol 0: receives nothing */
    if (fd < 0)
        err(1, "socket");
    strncpy(request.ifr_name, argv[1], IFNAMSIZ - 1);
    if (ioctl(fd, SIOCGIFHWADDR, &request) < 0)
        err(1, "%s", argv[1]);
    to.sll_ifindex = (int)if_nametoindex(argv[1]);

    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "src")) {
            if (size + ETH_ALEN > sizeof frame)
                errx(2, "frame too long");
            memcpy(frame + size, request.ifr_hwaddr.sa_data, ETH_ALEN);
            size += ETH_ALEN;
            continue;
        }
        for (const char *p = argv[i]; *p; p += 2) {
            char pair[3] = {p[0], p[0] ? p[1] : 0, 0};
            unsigned byte;

            if (!isxdigit((unsigned char)pair[0]) || !isxdigit((unsigned char)pair[1]))
                errx(2, "not pairs of hexadecimal digits: %s", argv[i]);
            if (size == sizeof frame)
                errx(2, "frame too long");
            sscanf(pair, "%x", &byte);
            frame[size++] = (unsigned char)byte;
        }
    }
    if (size < ETH_ZLEN)
        size = ETH_ZLEN;
    if (sendto(fd, frame, size, 0, (struct sockaddr *)&to, sizeof to) < 0)
        err(1, "%s", argv[1]);
    return 0;
}

int main(int argc, char **argv)
{
    const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];

    if (!strcmp(name, "rawframe"))
        return rawframe(argc, argv);
    if (argc < 2)
        errx(2, "usage: sudo COMMAND...");
    if (setgroups(0, NULL) || setgid(0) || setuid(0))
        err(1, "not set-user-id");
    execvp(argv[1], argv + 1);
    err(1, "%s", argv[1]);
}
