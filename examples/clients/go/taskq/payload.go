package taskq

import (
	"encoding/json"

	pb "example.com/taskq/v1"
)

// ToJSON makes a payload, or a result, of a value.
func ToJSON(value any) (*pb.Payload, error) {
	data, err := json.Marshal(value)
	return &pb.Payload{Data: data, ContentType: "application/json"}, err
}

// FromJSON reads a payload into what value points to. One that cannot be read ends its task: it will not get better.
func FromJSON(payload *pb.Payload, value any) error {
	if err := json.Unmarshal(payload.GetData(), value); err != nil {
		return Failed{Type: "PAYLOAD_UNDECODABLE", Message: err.Error(), Final: true}
	}
	return nil
}
