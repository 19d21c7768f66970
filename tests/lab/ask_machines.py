"""Observer (b), a process of its own in the client's network: which machine answers for the VIP?

Every few milliseconds each machine is asked *directly*, by frames to its own MAC address: an ARP request for
the IPv4 VIP and an ICMP echo to it, a neighbour solicitation for the IPv6 VIP and an ICMPv6 echo to it. Who
answers holds the VIP, even if the neighbours' caches name another machine. One line per answer on stdout: time
(CLOCK_MONOTONIC), kind (arp, icmp, ns, icmp6), machine. When this process had to wait for the processor: time,
"pause", for how long nothing was asked. Ends at SIGTERM.

Arguments: the client's interface, its MAC and addresses, the VIPs' addresses (IPv4 and IPv6, separated by a slash;
several VIPs by commas), then NAME=MAC for each machine. Of several VIPs, a quarter is asked for at a time. The kinds of
an answer on eth1 end in "@eth1", those of a further VIP in "#" and its place.
"""

import select
import signal
import socket
import struct
import sys
import time
from ipaddress import IPv4Address, IPv6Address

INTERVAL_S = 0.005
TURNS = 4  # in which every VIP is asked for once
PAUSE_S = 0.05  # what is further apart encloses nothing (observe.ENCLOSING_S), so two may answer unseen
ETH_IPV4, ETH_ARP, ETH_IPV6 = 0x0800, 0x0806, 0x86DD
NA, ECHO6, ECHO6_REPLY, NS = 136, 128, 129, 135


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))  # every message here has an even length
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp_request(mac: bytes, ip: IPv4Address, vip: IPv4Address) -> bytes:
    return struct.pack("!HHHBBH", ETH_ARP, 1, ETH_IPV4, 6, 4, 1) + mac + ip.packed + bytes(6) + vip.packed


def echo(ip: IPv4Address, vip: IPv4Address) -> bytes:
    body = struct.pack("!BBHHH", 8, 0, 0, 0x6F76, 1)
    body = body[:2] + struct.pack("!H", checksum(body)) + body[4:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, 1, 0, ip.packed, vip.packed)
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return struct.pack("!H", ETH_IPV4) + header + body


def icmp6(source: IPv6Address, vip: IPv6Address, body: bytes, hop_limit: int) -> bytes:
    pseudo = source.packed + vip.packed + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]
    header = struct.pack("!IHBB", 6 << 28, len(body), 58, hop_limit)
    return struct.pack("!H", ETH_IPV6) + header + source.packed + vip.packed + body


def questions(mac: bytes, v4: IPv4Address, v6: IPv6Address, vip4: IPv4Address, vip6: IPv6Address) -> list[bytes]:
    """The four frames, without the destination."""
    solicitation = struct.pack("!BBHI", NS, 0, 0, 0) + vip6.packed + b"\1\1" + mac
    return [
        mac + arp_request(mac, v4, vip4),
        mac + echo(v4, vip4),
        mac + icmp6(v6, vip6, solicitation, 255),
        mac + icmp6(v6, vip6, struct.pack("!BBHHH", ECHO6, 0, 0, 0x6F76, 1), 64),
    ]


def vips_of(text: str) -> list[tuple[IPv4Address, IPv6Address]]:
    """The argument."""
    pairs = (pair.split("/") for pair in text.split(","))
    return [(IPv4Address(v4), IPv6Address(v6)) for v4, v6 in pairs]


def kind_of(frame: bytes, vip4: IPv4Address, vip6: IPv6Address) -> str | None:
    """The question of which this frame is the answer for the VIP, if any."""
    ethertype = int.from_bytes(frame[12:14])
    if ethertype == ETH_ARP and frame[20:22] == b"\0\2" and frame[28:32] == vip4.packed:
        return "arp"
    if ethertype == ETH_IPV4 and frame[23] == 1 and frame[26:30] == vip4.packed and frame[34] == 0:
        return "icmp"
    if ethertype == ETH_IPV6 and len(frame) > 54 and frame[20] == 58:
        if frame[54] == NA and frame[62:78] == vip6.packed and frame[58] & 0x40:
            return "ns"
        if frame[54] == ECHO6_REPLY and frame[22:38] == vip6.packed:
            return "icmp6"
    return None


def main() -> None:
    """Ask until told to stop."""
    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    interface, own, v4, v6, listed, *named = sys.argv[1:]
    mac, vips = bytes.fromhex(own.replace(":", "")), vips_of(listed)
    machines = {bytes.fromhex(m.replace(":", "")): name for name, _, m in (a.partition("=") for a in named)}
    asked_for = [vips[first::TURNS] for first in range(min(TURNS, len(vips)))]
    frames = [
        [to + q for vip in some for q in questions(mac, IPv4Address(v4), IPv6Address(v6), *vip) for to in machines]
        for some in asked_for
    ]
    suffixes = [("" if interface == "eth0" else f"@{interface}") + (f"#{i}" if i else "") for i in range(len(vips))]
    turn = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        s.bind((interface, 3))
        s.setblocking(False)
        due = asked = time.monotonic()
        while not stopped:
            if (now := time.monotonic()) - asked > PAUSE_S:
                print(f"{now:.6f} pause {now - asked:.6f}")
            asked = now
            turn = (turn + 1) % len(frames)
            for frame in frames[turn]:
                try:
                    s.send(frame)
                except OSError:
                    break  # the client's own link is down for a moment
            due = max(due + INTERVAL_S, time.monotonic())
            while (wait := due - time.monotonic()) > 0:
                if not select.select([s], [], [], wait)[0]:
                    break
                frame, address = s.recvfrom(2048)
                if address[2] == socket.PACKET_OUTGOING or frame[6:12] not in machines:
                    continue
                for vip, suffix in zip(vips, suffixes, strict=True):
                    if kind := kind_of(frame, *vip):
                        print(f"{time.monotonic():.6f} {kind}{suffix} {machines[frame[6:12]]}")
                        break


if __name__ == "__main__":
    main()
