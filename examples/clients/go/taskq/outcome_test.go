package taskq

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

func TestWhateverAFailureSaysCanBeSent(t *testing.T) {
	for name, err := range map[string]error{
		"not UTF-8":       errors.New("caf\xe9"),
		"long":            errors.New(strings.Repeat("é", 5<<20)),
		"long, not UTF-8": Failed{strings.Repeat("\xff", 5<<20), strings.Repeat("é\xff", 5<<20), false},
		"of no type":      Failed{Message: "it is"},
	} {
		t.Run(name, func(t *testing.T) {
			outcome := failed(err).Failed
			if _, err := proto.Marshal(outcome); err != nil {
				t.Error(err)
			}
			if length := utf8.RuneCountInString(outcome.ErrorType); length < 1 || length > 256 {
				t.Errorf("the type has %d characters; must have 1 to 256", length)
			}
			if length := utf8.RuneCountInString(outcome.Message); length < 1 || length > 4096 {
				t.Errorf("the message has %d characters; must have 1 to 4096", length)
			}
		})
	}
}
