/* Publication and reclamation of a compiled table (fastpath/table/qsbr.pxd, fib.pyx, fib_pool.pyx).
 *
 * One writer publishes versions in three slots of memory; two readers, each
 * two bursts, load the published pointer once a burst and use it until they report.
 * A slot is freed when its token has passed, and may then hold another version. What it
 * held is kept (an edition's root): change n is bit n of it, and a slot taken again is
 * brought up to date with the changes noted since its own.
 *
 * A third reader, a snapshot, reports nothing but says what it holds, in one step with
 * loading it (both sides have the GIL): the writer leaves that slot alone.
 *
 * Checked: no reader ever uses a slot that was freed or filled anew since it
 * loaded the pointer; what it reads is all of the version, and does not change under
 * it. Each mutant is one mistake; each must be found.
 * Spin interleaves whole statements (sequential consistency): the memory orders
 * are for ThreadSanitizer and the comment in qsbr.pxd.
 */
/* mutant: NO_WAIT */
/* mutant: ADVANCE_BEFORE_PUBLISH */
/* mutant: KEPT_ACROSS_QUIESCENT */
/* mutant: LOADED_BEFORE_ONLINE */
/* mutant: QUIESCENT_BEFORE_LAST_READ */
/* mutant: OFFLINE_BEFORE_LAST_READ */
/* mutant: STALE_EDITION */
/* mutant: LAST_CHANGE_FORGOTTEN */
/* mutant: WRITTEN_IN_PLACE */
/* mutant: HOLDER_IGNORED */
/* mutant: HOLDER_LATE */

#define READERS 2
#define BURSTS 2
#define SLOTS 3
#define PUBLICATIONS 2

byte epoch = 1;            /* the writer's clock */
byte seen[READERS];        /* 0 = offline */
byte published;            /* slot of the current version */
bool live[SLOTS];          /* allocated */
byte filled[SLOTS];        /* how often a slot was filled: a stale pointer shows */
byte root[SLOTS];          /* the changes it has, a bit each */
byte position[SLOTS];      /* how many changes there were when it was last right */
byte whole[SLOTS];         /* what its version is to have */

#define NOTHING 99
byte held = NOTHING;       /* the slot that the snapshot has */

inline use(slot, was)
{
    assert(live[slot] && filled[slot] == was && root[slot] == whole[slot])
}

/* Bring a free slot up to date with `count` changes, one noted entry at a time. */
inline catch_up(slot, count)
{
#ifndef STALE_EDITION
    do
#ifdef LAST_CHANGE_FORGOTTEN
    :: position[slot] + 1 < count ->
#else
    :: position[slot] < count ->
#endif
        root[slot] = root[slot] | (1 << position[slot]);
        position[slot]++
    :: else -> break
    od
#else
    skip
#endif
}

proctype reader(byte me)
{
    byte burst = 0, slot, was, now;
#ifdef LOADED_BEFORE_ONLINE
    atomic { slot = published; was = filled[slot] };
#endif
    now = epoch; seen[me] = now;                        /* online */
    do
    :: burst < BURSTS ->
#ifdef KEPT_ACROSS_QUIESCENT
        if
        :: burst == 0 -> atomic { slot = published; was = filled[slot] }
        :: else
        fi;
#else
#ifndef LOADED_BEFORE_ONLINE
        atomic { slot = published; was = filled[slot] };
#else
        if
        :: burst > 0 -> atomic { slot = published; was = filled[slot] }
        :: else
        fi;
#endif
#endif
        use(slot, was);
#ifdef QUIESCENT_BEFORE_LAST_READ
        now = epoch; seen[me] = now;
        use(slot, was);
#else
        use(slot, was);
        now = epoch; seen[me] = now;                    /* quiescent */
#endif
        burst++
    :: burst == 1 ->                                    /* may go to sleep between bursts */
#ifdef OFFLINE_BEFORE_LAST_READ
        atomic { slot = published; was = filled[slot] };
        seen[me] = 0;
        use(slot, was);
#else
        seen[me] = 0;
#endif
        now = epoch; seen[me] = now;
        burst++
    :: burst == BURSTS -> break
    od;
    seen[me] = 0                                        /* offline */
}

inline wait_for(token)
{
    byte r = 0;
    do
    :: r < READERS -> (seen[r] == 0 || seen[r] >= token); r++
    :: r == READERS -> break
    od
}

proctype snapshot()
{
    byte slot, was;
#ifdef HOLDER_LATE
    atomic { slot = published; was = filled[slot] };
    held = slot;
#else
    atomic { slot = published; was = filled[slot]; held = slot };
#endif
    use(slot, was);
    use(slot, was);
    held = NOTHING
}

proctype writer()
{
    byte count = 0, old, fresh, token, r2;
    bool kept[SLOTS];
    do
    :: count < PUBLICATIONS ->
        if                                              /* any slot that is not in use */
        :: !live[0] -> fresh = 0
        :: !live[1] -> fresh = 1
        :: !live[2] -> fresh = 2
        fi;
        atomic { live[fresh] = true; filled[fresh]++ };
        old = published;
        catch_up(fresh, count);
#ifdef WRITTEN_IN_PLACE
        root[old] = root[old] | (1 << count);
#endif
        root[fresh] = root[fresh] | (1 << count);       /* the change itself */
        position[fresh] = count + 1;
        whole[fresh] = (1 << (count + 1)) - 1;
#ifdef ADVANCE_BEFORE_PUBLISH
        epoch++; token = epoch;
        published = fresh;
#else
        published = fresh;
        epoch++; token = epoch;
#endif
#ifndef NO_WAIT
        wait_for(token);
#endif
        kept[old] = true;
        /* give back what is kept and not held: now, or after a later change */
        r2 = 0;
        do
        :: r2 < SLOTS ->
            atomic {
                if
#ifdef HOLDER_IGNORED
                :: kept[r2] -> kept[r2] = false; live[r2] = false
#else
                :: kept[r2] && held != r2 -> kept[r2] = false; live[r2] = false
#endif
                :: else
                fi
            };
            r2++
        :: r2 == SLOTS -> break
        od;
        count++
    :: count == PUBLICATIONS -> break
    od
}

init
{
    atomic { live[0] = true; filled[0] = 1; run reader(0); run reader(1); run snapshot(); run writer() }
}
