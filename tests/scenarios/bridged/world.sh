# The host's NIC is one end of a pair; its other end is a machine outside, in a namespace of its own.
ip netns add outside
ip netns exec outside sh -c "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6"
ip link add nic0 type veth peer name wire0 netns outside
ip -n outside link set lo up
ip -n outside link set wire0 up
ip -n outside address add 192.168.1.1/24 dev wire0
# Somebody else's bridge, with the NIC as its port.
ip link add br0 address 02:00:00:00:00:b0 type bridge
echo 1 > /proc/sys/net/ipv6/conf/br0/disable_ipv6
ip link set nic0 master br0 up
ip link set br0 up
