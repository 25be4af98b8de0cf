module raftadmin

go 1.24

tool github.com/Jille/raftadmin/cmd/raftadmin

require (
	github.com/Jille/grpc-multi-resolver v1.3.0 // indirect
	github.com/Jille/raftadmin v1.2.1 // indirect
	github.com/golang/protobuf v1.5.3 // indirect
	github.com/iancoleman/strcase v0.3.0 // indirect
	golang.org/x/net v0.14.0 // indirect
	golang.org/x/sys v0.11.0 // indirect
	golang.org/x/text v0.12.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20230822172742-b8732ec3820d // indirect
	google.golang.org/grpc v1.57.0 // indirect
	google.golang.org/protobuf v1.31.0 // indirect
)
