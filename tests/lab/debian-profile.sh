# Root's login on the console of a Debian guest says what the small guest's init does, and prompts as
# its shell does. A serial line has no size; with one, a wide one, nothing wraps.
stty rows 24 cols 1000
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PS1='guest# '
read -r _ memory _ </proc/meminfo
echo "REEVE-GUEST-UP $(nproc) $memory"
