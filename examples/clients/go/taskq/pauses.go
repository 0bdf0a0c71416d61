package taskq

import (
	"context"
	"math/rand/v2"
	"time"
)

// pauses between tries grow from first to most, spread so that many clients do not return at the same instant.
type pauses struct{ first, most, last time.Duration }

func (p *pauses) next() time.Duration {
	p.last = min(max(2*p.last, p.first), p.most)
	return p.last/2 + rand.N(p.last/2)
}

func (p *pauses) reset() { p.last = 0 }

func (p *pauses) wait(over context.Context) {
	select {
	case <-time.After(p.next()):
	case <-over.Done():
	}
}
