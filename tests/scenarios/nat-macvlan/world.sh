# The host's NIC is one end of a pair; its other end is a machine outside, in a namespace of its own.
ip netns add outside
ip netns exec outside sh -c "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"
ip link add nic0 type veth peer name wire0 netns outside
ip -n outside link set lo up
ip -n outside link set wire0 up
ip -n outside address add 192.0.2.1/24 dev wire0
ip address add 192.0.2.2/24 dev nic0
ip link set nic0 up
ip route add default via 192.0.2.1
ip -n outside route add 10.0.0.0/14 via 192.0.2.9
