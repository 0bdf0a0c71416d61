package taskq

import (
	"context"
	"log"
	"sync"
	"time"

	pb "example.com/taskq/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	maxRequestBytes = 1 << 20
	maxResults      = 1000
	// A heartbeat that left so soon after a stream was opened may have been answered before the server saw the stream.
	settling = time.Second
)

type key struct {
	taskID  string
	attempt int32
}

// session is one registration: its stream, its heartbeats and its reports, until the server or a drain ends it.
type session struct {
	*Processor
	id             string
	interval, ping time.Duration
	life           context.Context // done once the session has ended; so is every handler's
	end            context.CancelCauseFunc
	results        chan *pb.TaskResult // as many as can be held: nobody waits for room
	hurry, reopen  chan struct{}

	lock     sync.Mutex
	held     map[key]context.CancelCauseFunc // from its arrival until its report is answered
	draining bool
	resting  bool
	opened   time.Time // the open stream; zero when there is none
}

func newSession(p *Processor, registered *pb.RegisterResponse) *session {
	life, end := context.WithCancelCause(context.Background())
	return &session{
		Processor: p,
		id:        registered.SessionId,
		interval:  registered.HeartbeatInterval.AsDuration(),
		ping:      max(registered.PingInterval.AsDuration(), 100*time.Millisecond),
		life:      life,
		end:       end,
		results:   make(chan *pb.TaskResult, 2*p.Limit),
		hurry:     make(chan struct{}, 1),
		reopen:    make(chan struct{}, 1),
		held:      map[key]context.CancelCauseFunc{},
	}
}

// live returns when the server has ended the session, or when ctx is done and everything is reported.
func (s *session) live(ctx context.Context) {
	defer s.end(errLost)
	go s.stream()
	go s.beat()
	go s.report()
	select {
	case <-s.life.Done():
	case <-ctx.Done():
		s.drain()
	}
}

// stream keeps a task stream open: whatever ends it, another is opened.
func (s *session) stream() {
	again := &pauses{first: 500 * time.Millisecond, most: 30 * time.Second}
	for s.life.Err() == nil {
		isSuperseded, err := s.read(again)
		s.setOpened(time.Time{})
		if status.Code(err) == codes.NotFound {
			log.Printf("session %s has ended", s.id)
			s.end(errLost)
			return
		}
		if isSuperseded {
			// Somebody else reads this session's stream. To take it back would start a quarrel; when nobody reads it any
			// more, a heartbeat's answer says so.
			select {
			case <-s.reopen:
			case <-s.life.Done():
			}
		}
		again.wait(s.life, s.reopen)
	}
}

func (s *session) read(again *pauses) (isSuperseded bool, err error) {
	ctx, cancel := context.WithCancel(s.life)
	defer cancel()
	stream, err := s.client.StreamTasks(ctx, &pb.StreamTasksRequest{SessionId: s.id})
	if err != nil {
		return false, err
	}
	s.setOpened(time.Now())
	go func() {
		select {
		case <-s.reopen:
			cancel()
		case <-ctx.Done():
		}
	}()
	silence := time.AfterFunc(3*s.ping, cancel)
	defer silence.Stop()
	for {
		event, err := stream.Recv()
		if err != nil {
			return isSuperseded, err
		}
		silence.Reset(3 * s.ping)
		again.reset()
		switch event := event.Event.(type) {
		case *pb.StreamTasksResponse_Tasks:
			s.take(event.Tasks.Tasks)
		case *pb.StreamTasksResponse_Cancel:
			s.stop(event.Cancel.Attempts, errCancelled)
		case *pb.StreamTasksResponse_Superseded:
			isSuperseded = true
		case *pb.StreamTasksResponse_Drain:
			// The server ends this stream and another is opened; or an administrator drains us, and nothing more comes.
			log.Printf("drain: %s", event.Drain.Reason)
		}
	}
}

func (s *session) setOpened(moment time.Time) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.opened = moment
}

// take starts what has come, unless it is held already: a new stream may bring again what the one before has brought.
func (s *session) take(tasks []*pb.AssignedTask) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, task := range tasks {
		attempt := key{task.TaskId, task.Attempt}
		if _, isHeld := s.held[attempt]; isHeld {
			continue
		}
		ctx, cancel := context.WithCancelCause(s.life)
		s.held[attempt] = cancel
		if s.draining {
			released := &pb.TaskResult_Released{Released: &pb.Released{}}
			s.results <- &pb.TaskResult{TaskId: task.TaskId, Attempt: task.Attempt, Outcome: released}
			continue
		}
		go func() {
			if result := s.run(ctx, task); result != nil {
				s.results <- result
			}
		}()
	}
	if s.resting {
		s.beatSoon()
	}
}

func (s *session) stop(attempts []*pb.AttemptRef, why error) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, each := range attempts {
		attempt := key{each.TaskId, each.Attempt}
		if cancel, isHeld := s.held[attempt]; isHeld {
			cancel(why)
			if why == errLost {
				delete(s.held, attempt)
			}
		}
	}
}

// beat tells the server that this processor lives, and what it holds.
func (s *session) beat() {
	pause, again := s.interval, &pauses{first: 100 * time.Millisecond, most: min(time.Second, s.interval)}
	for {
		select {
		case <-s.life.Done():
			return
		case <-time.After(pause):
		case <-s.hurry:
		}
		sent := time.Now()
		ctx, cancel := context.WithTimeout(s.life, s.interval)
		answer, err := s.heart.Heartbeat(ctx, s.heartbeat())
		cancel()
		if err != nil {
			log.Printf("heartbeat failed: %v", err)
			again.wait(s.life, nil)
			pause = 0
			continue
		}
		again.reset()
		s.stop(answer.Lost, errLost)
		s.stop(answer.Cancelled, errCancelled)
		switch answer.Stream {
		case pb.StreamState_STREAM_STATE_REREGISTER:
			log.Printf("session %s has ended", s.id)
			s.end(errLost)
		case pb.StreamState_STREAM_STATE_REOPEN:
			s.reopenIfOlder(sent)
		}
		pause = s.restOr(answer)
	}
}

func (s *session) heartbeat() *pb.HeartbeatRequest {
	s.lock.Lock()
	defer s.lock.Unlock()
	request := &pb.HeartbeatRequest{SessionId: s.id, Draining: s.draining}
	for attempt := range s.held {
		request.InFlight = append(request.InFlight, &pb.InFlight{TaskId: attempt.taskID, Attempt: attempt.attempt})
	}
	return request
}

func (s *session) reopenIfOlder(sent time.Time) {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.opened.Add(settling).Before(sent) {
		signal(s.reopen)
	}
}

// restOr answers when the next heartbeat is due: who holds nothing may rest, until something comes.
func (s *session) restOr(answer *pb.HeartbeatResponse) time.Duration {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.resting = answer.Rest != nil && len(s.held) == 0
	if s.resting {
		return answer.Rest.AsDuration()
	}
	return s.interval
}

func (s *session) beatSoon() {
	s.resting = false
	signal(s.hurry)
}

// report sends results until they are answered: many in one request, one request at a time.
func (s *session) report() {
	var next *pb.TaskResult
	for {
		if next == nil {
			select {
			case <-s.life.Done():
				return
			case next = <-s.results:
			}
		}
		batch, size := []*pb.TaskResult{}, 0
		for next != nil && len(batch) < maxResults && (len(batch) == 0 || size+proto.Size(next) < maxRequestBytes) {
			batch, size, next = append(batch, next), size+proto.Size(next), nil
			select {
			case next = <-s.results:
			default:
			}
		}
		s.deliver(batch)
	}
}

func (s *session) deliver(batch []*pb.TaskResult) {
	again := &pauses{first: 100 * time.Millisecond, most: 5 * time.Second}
	for s.life.Err() == nil {
		ctx, cancel := context.WithTimeout(s.life, reportTimeout)
		answer, err := s.client.ReportResult(ctx, &pb.ReportResultRequest{SessionId: s.id, Results: batch})
		cancel()
		if err == nil {
			s.answered(answer.Answers)
			return
		}
		log.Printf("%d reports are not answered: %v", len(batch), err)
		if status.Code(err) == codes.InvalidArgument {
			s.deliverOneByOne(batch, err)
			return
		}
		again.wait(s.life, nil)
	}
}

// deliverOneByOne finds the report that is refused; what cannot be reported as it is, is reported as failed.
func (s *session) deliverOneByOne(batch []*pb.TaskResult, refusal error) {
	if len(batch) > 1 {
		for _, result := range batch {
			s.deliver([]*pb.TaskResult{result})
		}
		return
	}
	if batch[0].GetFailed().GetErrorType() == "REPORT_REFUSED" {
		s.stop([]*pb.AttemptRef{{TaskId: batch[0].TaskId, Attempt: batch[0].Attempt}}, errLost)
		return
	}
	batch[0].Outcome = failed(Failed{"REPORT_REFUSED", refusal.Error(), true})
	s.deliver(batch)
}

// answered lets go of attempts, whatever the answer was: LEASE_LOST is as final as ACCEPTED.
func (s *session) answered(answers []*pb.ReportAnswer) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, answer := range answers {
		if cancel := s.held[key{answer.TaskId, answer.Attempt}]; cancel != nil {
			cancel(nil)
		}
		delete(s.held, key{answer.TaskId, answer.Attempt})
	}
}

// drain takes nothing more, waits until everything that is held is reported, and unregisters.
func (s *session) drain() {
	s.lock.Lock()
	s.draining = true
	s.beatSoon()
	s.lock.Unlock()
	until := time.Now().Add(s.DrainTimeout)
	for isLate := false; s.life.Err() == nil && s.holdsSome(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			if isLate {
				break // a handler that does not listen; its task is released with the session
			}
			isLate, until = true, time.Now().Add(5*time.Second)
			s.stopAll()
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if _, err := s.client.Unregister(ctx, &pb.UnregisterRequest{SessionId: s.id}); err != nil {
		log.Printf("unregister failed: %v", err) // the server ends the session by itself, after a lease
	}
}

func (s *session) holdsSome() bool {
	s.lock.Lock()
	defer s.lock.Unlock()
	return len(s.held) > 0
}

func (s *session) stopAll() {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, cancel := range s.held {
		cancel(errDrained)
	}
}

func signal(channel chan<- struct{}) {
	select {
	case channel <- struct{}{}:
	default:
	}
}
