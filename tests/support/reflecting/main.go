// Command reflecting calls a method of which it knows nothing but its name: what is served, and of which messages, it
// asks by server reflection v1alpha, the one version that evans speaks, and by the same library.
//
//	reflecting ADDRESS               lists the services, having described each
//	reflecting ADDRESS METHOD JSON   calls, and prints each answer as JSON
//
// With TOKEN in the environment, that is shown.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jhump/protoreflect/dynamic"
	"github.com/jhump/protoreflect/dynamic/grpcdynamic"
	"github.com/jhump/protoreflect/grpcreflect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
)

func main() {
	if len(os.Args) != 2 && len(os.Args) != 4 {
		fail(fmt.Errorf("usage: reflecting ADDRESS [METHOD JSON]"))
	}
	asking, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if token := os.Getenv("TOKEN"); token != "" {
		asking = metadata.AppendToOutgoingContext(asking, "authorization", "Bearer "+token)
	}
	channel := must(grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials())))
	server := grpcreflect.NewClientV1Alpha(asking, grpc_reflection_v1alpha.NewServerReflectionClient(channel))
	if len(os.Args) == 2 {
		for _, name := range must(server.ListServices()) {
			fmt.Println(must(server.ResolveService(name)).GetFullyQualifiedName())
		}
		return
	}
	service, name, _ := strings.Cut(os.Args[2], "/")
	method := must(server.ResolveService(service)).FindMethodByName(name)
	if method == nil {
		fail(fmt.Errorf("there is no method %s", os.Args[2]))
	}
	request := dynamic.NewMessage(method.GetInputType())
	check(request.UnmarshalJSON([]byte(os.Args[3])))
	stub := grpcdynamic.NewStub(channel)
	if !method.IsServerStreaming() {
		show(must(stub.InvokeRpc(asking, method, request)))
		return
	}
	answers := must(stub.InvokeRpcServerStream(asking, method, request))
	for {
		answer, err := answers.RecvMsg()
		if err == io.EOF {
			return
		}
		check(err)
		show(answer)
	}
}

func show(answer any) {
	fmt.Println(string(must(json.Marshal(answer))))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
