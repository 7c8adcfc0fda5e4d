# Rows for docs/performance.md from lines `NAME WALL CPU`: the n-th line of one name pairs with the n-th of another.
{
    wall[$1, ++count[$1]] = $2
    cpu[$1, count[$1]] = $3
}

END {
    print "| what | vmnet | beside it | ratio of times | ratio of CPU time |"
    print "| --- | --- | --- | --- | --- |"
    row("`create` / `ip -batch`", "create.vmnet", "create.ip")
    row("`create` / `ip -batch`, one queue", "create.vmnet", "create.ip-one-queue")
    row("`create` again / `ip -d -j link show`", "again.vmnet", "show.ip")
    row("`destroy` / `ip -batch`", "destroy.vmnet", "delete.ip")
    small("`qemu-ifup` / `sh -c 'ip link set'`", "hook.vmnet", "hook.sh")
    small("`vmnet --version` / `ip -V`", "start.vmnet", "start.ip")
    if (count["peak.create"])
        printf "\nmemory at its peak: create %.1f MiB, again %.1f MiB", peak("create"), peak("again")
    print count["peak.destroy"] ? sprintf(", destroy %.1f MiB", peak("destroy")) : ""
}

function peak(what) {
    return wall["peak." what, 1] / 1024
}

# The values of one name, sorted, in `list`; gives how many.
function sorted(table, name,    i, j, n, value) {
    n = count[name]
    for (i = 1; i <= n; i++) {
        value = table[name, i]
        for (j = i - 1; j > 0 && list[j] > value; j--) list[j + 1] = list[j]
        list[j + 1] = value
    }
    return n
}

function median(table, name,    n) {
    n = sorted(table, name)
    return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
}

function ratios(table, a, b,    i, n, middle) {
    n = count[a] < count[b] ? count[a] : count[b]
    count["ratio"] = 0
    for (i = 1; i <= n; i++) if (table[b, i] > 0) quotient["ratio", ++count["ratio"]] = table[a, i] / table[b, i]
    if (!count["ratio"]) return "-"
    middle = median(quotient, "ratio")
    return sprintf("**%.2f** (%.2f-%.2f)", middle, list[1], list[count["ratio"]])
}

function row(title, a, b) {
    if (!count[a] || !count[b]) return
    printf "| %s | %.3f s | %.3f s | %s | %s |\n", title, median(wall, a), median(wall, b), ratios(wall, a, b), \
        ratios(cpu, a, b)
}

# A few milliseconds, of which the start of any program at all by this shell is a part: without that part too.
function small(title, a, b,    one, other, floor) {
    if (!count[a] || !count[b]) return
    one = median(wall, a)
    other = median(wall, b)
    floor = median(wall, "floor")
    printf "| %s | %.2f ms | %.2f ms | %s; **%.2f** without the %.2f ms of `/bin/true` | |\n", title, one * 1000, \
        other * 1000, ratios(wall, a, b), (one - floor) / (other - floor), floor * 1000
}
