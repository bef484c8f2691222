package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"log"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pingcap/kvproto/pkg/errorpb"
	"github.com/pingcap/tidb/pkg/store/mockstore/unistore/tikv/mvcc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	exitStatus      = 137 // as if it had been killed
	percentAll      = 100
	percentStep     = 37 // has no divisor in common with 100, so that a percentage is spread evenly
	delayStandardMs = 100
)

// setting says which requests a fail point meets.
type setting struct {
	Name string `json:"name"`
	// Times is how often it fires; 0 until it is taken away.
	Times uint64 `json:"times,omitempty"`
	// Percent of the requests that it meets; 0 stands for all. Which ones follows from their order.
	Percent uint64 `json:"percent,omitempty"`
	// Milliseconds of a delay.
	Milliseconds uint64 `json:"milliseconds,omitempty"`
	// Prefix of a key that the request has to name, in hexadecimal: tests that share a store do not meet each other's.
	Prefix string `json:"prefix,omitempty"`
}

// point is a fail point that is set.
type point struct {
	setting
	// Met requests, those at which it fired, and those that it holds now.
	Met   uint64 `json:"met"`
	Fired uint64 `json:"fired"`
	Holds uint64 `json:"holds"`

	prefix []byte
	effect effect
	gone   chan struct{} // closed when it is taken away
}

// faults makes requests fail in named ways.
type faults struct {
	bundle  *mvcc.DBBundle
	regions *regions
	effects map[string]effect

	mutex  sync.Mutex
	points []*point
}

func newFaults(bundle *mvcc.DBBundle, regions *regions) *faults {
	return &faults{bundle: bundle, regions: regions, effects: effects()}
}

// set adds a fail point, or replaces the one of this name and prefix.
func (f *faults) set(wanted setting) error {
	effect, known := f.effects[wanted.Name]
	if !known {
		return fmt.Errorf("there is no fail point %q; GET /failpoints/names lists them", wanted.Name)
	}
	if wanted.Percent > percentAll {
		return fmt.Errorf("percent is %d, more than %d", wanted.Percent, percentAll)
	}
	prefix, err := hex.DecodeString(wanted.Prefix)
	if err != nil {
		return fmt.Errorf("prefix: %w", err)
	}
	if wanted.Percent == 0 {
		wanted.Percent = percentAll
	}
	f.clear(wanted.Name, wanted.Prefix)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	f.points = append(f.points, &point{setting: wanted, prefix: prefix, effect: effect, gone: make(chan struct{})})
	return nil
}

// clear takes fail points away and lets go on what they hold. It returns those that it took away. No name stands for all.
func (f *faults) clear(name, prefix string) []point {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	taken := []point{}
	f.points = slices.DeleteFunc(f.points, func(p *point) bool {
		matches := name == "" || (p.Name == name && p.Prefix == prefix)
		if matches {
			taken = append(taken, *p)
			close(p.gone)
		}
		return matches
	})
	return taken
}

func (f *faults) list() []point {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	all := []point{}
	for _, p := range f.points {
		all = append(all, *p)
	}
	return all
}

// firing are the fail points that fire at a request, in the order in which they were set.
func (f *faults) firing(c *call) []*point {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	var all []*point
	for _, p := range f.points {
		if !p.effect.meets(f, c) || !c.touches(p.prefix) {
			continue
		}
		p.Met++
		if (p.Met*percentStep)%percentAll >= p.Percent || (p.Times > 0 && p.Fired >= p.Times) {
			continue
		}
		p.Fired++
		all = append(all, p)
	}
	return all
}

func (f *faults) intercept(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	c := &call{ctx: ctx, kind: path.Base(info.FullMethod), request: request}
	firing := f.firing(c)
	for _, p := range firing {
		if p.effect.before == nil {
			continue
		}
		if response, err := p.effect.before(f, p, c); response != nil || err != nil {
			return response, err
		}
	}
	response, err := handle(ctx, request)
	for _, p := range firing {
		if p.effect.after == nil {
			continue
		}
		if err := p.effect.after(f, p, c); err != nil {
			return nil, err
		}
	}
	return response, err
}

// effect is what a fail point does.
type effect struct {
	meets func(*faults, *call) bool
	// before the request is carried out; what it returns is answered instead.
	before func(*faults, *point, *call) (any, error)
	// after it was carried out; an error is answered instead.
	after func(*faults, *point, *call) error
}

// spoken are the words for kinds of requests in names of fail points.
var spoken = map[string]string{
	"prewrite":         "KvPrewrite",
	"commit":           "KvCommit",
	"rollback":         "KvBatchRollback",
	"get":              "KvGet",
	"batch-get":        "KvBatchGet",
	"scan":             "KvScan",
	"scan-lock":        "KvScanLock",
	"check-txn-status": "KvCheckTxnStatus",
	"resolve-lock":     "KvResolveLock",
	"pessimistic-lock": "KvPessimisticLock",
	"heartbeat":        "KvTxnHeartBeat",
}

// effects are all fail points there are, by name.
func effects() map[string]effect {
	all := map[string]effect{
		"refuse-one-pc": {meets: ofKind("KvPrewrite"), before: refuseOnePhase},
		"server-is-busy": {meets: inRegion, before: regionError(func(*faults, *call) *errorpb.Error {
			return &errorpb.Error{Message: "server is busy", ServerIsBusy: &errorpb.ServerIsBusy{Reason: "fail point"}}
		})},
		"epoch-not-match": {meets: inRegion, before: regionError(func(f *faults, c *call) *errorpb.Error {
			return &errorpb.Error{Message: "epoch not match", EpochNotMatch: &errorpb.EpochNotMatch{}}
		})},
		"not-leader": {meets: inRegion, before: regionError(func(f *faults, c *call) *errorpb.Error {
			return &errorpb.Error{Message: "not leader", NotLeader: &errorpb.NotLeader{RegionId: c.region()}}
		})},
		"region-not-found": {meets: inRegion, before: regionError(func(f *faults, c *call) *errorpb.Error {
			return &errorpb.Error{Message: "region not found", RegionNotFound: &errorpb.RegionNotFound{RegionId: c.region()}}
		})},
		"stale-command": {meets: inRegion, before: regionError(func(*faults, *call) *errorpb.Error {
			return &errorpb.Error{Message: "stale command", StaleCommand: &errorpb.StaleCommand{}}
		})},
		"max-timestamp-not-synced": {meets: ofKind("KvPrewrite"), before: regionError(func(*faults, *call) *errorpb.Error {
			return &errorpb.Error{Message: "max timestamp is not synced", MaxTimestampNotSynced: &errorpb.MaxTimestampNotSynced{}}
		})},
	}
	for word, kind := range spoken {
		aroundKind(all, word, ofKind(kind))
	}
	for _, word := range []string{"prewrite", "commit"} {
		aroundKind(all, "primary-"+word, allOf(ofKind(spoken[word]), ofPrimary))
		aroundKind(all, "secondary-"+word, allOf(ofKind(spoken[word]), ofSecondary))
	}
	return all
}

// aroundKind adds the fail points that there are for every kind of request.
func aroundKind(all map[string]effect, word string, meets func(*faults, *call) bool) {
	all["lose-"+word+"-request"] = effect{meets: meets, before: func(_ *faults, p *point, _ *call) (any, error) { return nil, lost(p) }}
	all["lose-"+word+"-reply"] = effect{meets: meets, after: func(_ *faults, p *point, _ *call) error { return lost(p) }}
	all["withhold-"+word+"-reply"] = effect{meets: meets, after: withhold}
	all["delay-"+word] = effect{meets: meets, before: delay}
	all["pause-before-"+word] = effect{meets: meets, before: func(f *faults, p *point, _ *call) (any, error) { f.hold(p); return nil, nil }}
	all["pause-after-"+word] = effect{meets: meets, after: func(f *faults, p *point, _ *call) error { f.hold(p); return nil }}
	all["exit-before-"+word] = effect{meets: meets, before: func(_ *faults, p *point, _ *call) (any, error) { exit(p); return nil, nil }}
	all["exit-after-"+word] = effect{meets: meets, after: func(_ *faults, p *point, _ *call) error { exit(p); return nil }}
}

func effectNames() []string {
	var names []string
	for name := range effects() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func ofKind(kind string) func(*faults, *call) bool {
	return func(_ *faults, c *call) bool { return c.kind == kind }
}

func allOf(all ...func(*faults, *call) bool) func(*faults, *call) bool {
	return func(f *faults, c *call) bool {
		return !slices.ContainsFunc(all, func(one func(*faults, *call) bool) bool { return !one(f, c) })
	}
}

func inRegion(_ *faults, c *call) bool { return c.withRegionError(nil) != nil }

func ofPrimary(f *faults, c *call) bool {
	primary := f.primaryOf(c)
	return slices.ContainsFunc(c.keys(), func(key []byte) bool { return bytes.Equal(key, primary) })
}

func ofSecondary(f *faults, c *call) bool { return len(c.keys()) > 0 && !ofPrimary(f, c) }

// primaryOf looks into the locks where the request does not say what the primary is.
func (f *faults) primaryOf(c *call) []byte {
	if primary := c.primary(); len(primary) > 0 {
		return primary
	}
	for _, key := range c.keys() {
		if lock := f.bundle.LockStore.Get(key, nil); len(lock) > 0 {
			return mvcc.DecodeLock(lock).Primary
		}
	}
	return nil
}

func lost(p *point) error {
	return status.Errorf(codes.Unavailable, "transport: cut by the fail point %s", p.Name)
}

// withhold answers nothing until the client has given up.
func withhold(_ *faults, p *point, c *call) error {
	select {
	case <-c.ctx.Done():
	case <-p.gone:
	}
	return lost(p)
}

// delay does not end early when the client gives up: a request that arrives late is what it is for.
func delay(_ *faults, p *point, _ *call) (any, error) {
	milliseconds := p.Milliseconds
	if milliseconds == 0 {
		milliseconds = delayStandardMs
	}
	select {
	case <-time.After(time.Duration(milliseconds) * time.Millisecond):
	case <-p.gone:
	}
	return nil, nil
}

// hold keeps a request until the fail point is taken away, whether or not its client waits so long.
func (f *faults) hold(p *point) {
	f.count(p, 1)
	<-p.gone
	f.count(p, -1)
}

func (f *faults) count(p *point, by int64) {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	p.Holds = uint64(int64(p.Holds) + by)
}

func exit(p *point) {
	log.Printf("exit at the fail point %s", p.Name)
	os.Exit(exitStatus)
}

// refuseOnePhase does what TiKV does when it cannot commit in one phase: it writes locks and gives no commit timestamp.
func refuseOnePhase(_ *faults, _ *point, c *call) (any, error) {
	c.refuseOnePhase()
	return nil, nil
}

func regionError(build func(*faults, *call) *errorpb.Error) func(*faults, *point, *call) (any, error) {
	return func(f *faults, p *point, c *call) (any, error) {
		built := build(f, c)
		built.Message = strings.Join([]string{built.Message, "fail point"}, ": ")
		return c.withRegionError(built), nil
	}
}
